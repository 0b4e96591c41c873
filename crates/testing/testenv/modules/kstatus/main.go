// Says what kstatus makes of objects: one JSON object per line comes in, one line `Status: message` goes out for each.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	objects := json.NewDecoder(in)
	for {
		// Not a plain map: kstatus wants whole numbers as int64.
		var object unstructured.Unstructured
		if err := objects.Decode(&object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		result, err := status.Compute(&object)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		message := strings.ReplaceAll(result.Message, "\n", " ")
		if _, err := fmt.Fprintf(out, "%s: %s\n", result.Status, message); err != nil {
			return err
		}
	}
}
