// A pod network for clusters whose nodes share a LAN: on each node it writes the CNI configuration for the node's own
// range of pod addresses, and keeps one route per other node. What pods send to others goes out under the node's address,
// as nobody outside knows where pods are.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const configuration = "/etc/cni/net.d/10-pod-network.conflist"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv("NODE_NAME")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, own string) error {
	if own == "" {
		return errors.New("NODE_NAME is not set")
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	// Until kube-proxy knows the Service, nobody answers; the default would wait for half a minute.
	config.Dial = (&net.Dialer{Timeout: time.Second}).DialContext
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 10*time.Minute)
	nodes := factory.Core().V1().Nodes().Informer()
	each := func(object any) {
		if node, ok := object.(*corev1.Node); ok {
			if err := apply(node, own); err != nil {
				log.Printf("node %s: %v", node.Name, err)
			}
		}
	}
	_, err = nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    each,
		UpdateFunc: func(_, node any) { each(node) },
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			if node, ok := object.(*corev1.Node); ok && node.Name != own {
				if route := routeTo(node); route != nil {
					_ = netlink.RouteDel(route)
				}
			}
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	return nil
}

func apply(node *corev1.Node, own string) error {
	if node.Spec.PodCIDR == "" {
		return nil
	}
	if node.Name == own {
		return configure(node.Spec.PodCIDR)
	}
	route := routeTo(node)
	if route == nil {
		return nil
	}
	return netlink.RouteReplace(route)
}

func routeTo(node *corev1.Node) *netlink.Route {
	_, pods, err := net.ParseCIDR(node.Spec.PodCIDR)
	if err != nil {
		return nil
	}
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return &netlink.Route{Dst: pods, Gw: net.ParseIP(address.Address)}
		}
	}
	return nil
}

// configure writes the file whole or not at all: containerd reads it whenever the folder changes.
func configure(pods string) error {
	content := fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "pod-network", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`, pods)
	if old, err := os.ReadFile(configuration); err == nil && string(old) == content {
		return nil
	}
	partial := filepath.Join(filepath.Dir(configuration), ".pod-network.partial")
	if err := os.WriteFile(partial, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(partial, configuration)
}
