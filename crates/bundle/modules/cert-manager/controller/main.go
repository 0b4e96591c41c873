// cert-manager's controller with the parts that certificates of selfSigned and CA issuers need: no ACME, Vault or Venafi, and so
// none of their libraries.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/metrics"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/logs"
)

const (
	lease        = "cert-manager-controller"
	leaseSeconds = 60 * time.Second
	renewSeconds = 40 * time.Second
	retrySeconds = 5 * time.Second
	// How long a lease may be overdue before the pod is restarted.
	overdue = 20 * time.Second
	workers = 2
)

var (
	clusterResources = flag.String("cluster-resource-namespace", "kube-system", "where the Secrets of ClusterIssuers are")
	leaseNamespace   = flag.String("leader-election-namespace", "kube-system", "where the Lease is")
	metricsAddress   = flag.String("metrics-listen-address", "0.0.0.0:9402", "where metrics are served")
	healthAddress    = flag.String("healthz-listen-address", "0.0.0.0:9403", "where /livez is served")
	kubeconfig       = flag.String("kubeconfig", "", "path of a kubeconfig; without it, the pod's own account")
)

func main() {
	klog.InitFlags(nil)
	flag.Parse()
	logs.InitLogs()
	defer logs.FlushLogs()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(klog.NewContext(ctx, logs.Log)); err != nil {
		klog.ErrorS(err, "the controller ends")
		logs.FlushLogs()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:         *kubeconfig,
		KubernetesAPIQPS:   20,
		KubernetesAPIBurst: 50,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: *clusterResources},
		CertificateOptions: controller.CertificateOptions{
			CopiedAnnotationPrefixes: []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"},
			// Its defaults; without them what fails is tried again at once.
			CertificateRequestMinimumBackoffDuration: time.Hour,
			CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
		},
	})
	if err != nil {
		return err
	}
	root, err := factory.Build()
	if err != nil {
		return err
	}
	alive := leaderelection.NewLeaderHealthzAdaptor(overdue)
	group, ctx := errgroup.WithContext(ctx)
	metrics, err := net.Listen("tcp", *metricsAddress)
	if err != nil {
		return err
	}
	serve(ctx, group, root.Metrics.NewServer(metrics), metrics)
	health, err := net.Listen("tcp", *healthAddress)
	if err != nil {
		return err
	}
	serve(ctx, group, &http.Server{Handler: livez(alive), ReadHeaderTimeout: 10 * time.Second}, health)
	group.Go(func() error {
		return lead(ctx, root, alive, func(ctx context.Context) error { return work(ctx, factory, root) })
	})
	return group.Wait()
}

func livez(alive *leaderelection.HealthzAdaptor) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(answer http.ResponseWriter, request *http.Request) {
		if err := alive.Check(request); err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(answer, "ok")
	})
	return mux
}

// serve serves until the context ends.
func serve(ctx context.Context, group *errgroup.Group, server *http.Server, listener net.Listener) {
	group.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return server.Shutdown(end)
	})
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

// lead works while this process holds the Lease, and fails when that is lost.
func lead(ctx context.Context, root *controller.Context, alive *leaderelection.HealthzAdaptor, work func(context.Context) error) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(root.RESTConfig)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	lost := errors.New("the lease was lost")
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: *leaseNamespace, Name: lease},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: host, EventRecorder: root.Recorder},
		},
		LeaseDuration:   leaseSeconds,
		RenewDeadline:   renewSeconds,
		RetryPeriod:     retrySeconds,
		ReleaseOnCancel: true,
		WatchDog:        alive,
		Name:            lease,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				defer close(done)
				if err := work(ctx); err != nil {
					cancel(err)
				}
			},
			OnStoppedLeading: func() { cancel(lost) },
		},
	})
	if err != nil {
		return err
	}
	stopped := ctx.Done()
	elector.Run(ctx)
	<-stopped
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// work runs every controller that is linked into this program.
func work(ctx context.Context, factory *controller.ContextFactory, root *controller.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for name, construct := range controller.Known() {
		loop, err := construct(factory)
		if err != nil {
			return fmt.Errorf("controller %s: %w", name, err)
		}
		group.Go(func() error {
			if err := loop.Run(workers, ctx); err != nil {
				return fmt.Errorf("controller %s: %w", name, err)
			}
			return nil
		})
	}
	root.SharedInformerFactory.Start(ctx.Done())
	root.KubeSharedInformerFactory.Start(ctx.Done())
	return group.Wait()
}
