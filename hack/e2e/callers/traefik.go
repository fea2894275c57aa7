package callers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/keywright/keywright/hack/e2e/buildcache"
	"github.com/keywright/keywright/hack/e2e/stack"
)

//go:embed traefik.yaml.tmpl
var traefikConfig string

var traefikTemplate = template.Must(template.New("traefik.yaml").Parse(traefikConfig))

// sitesFile is not traefik.yaml: that is taken for the program's own settings.
const sitesFile = "sites.yaml"

// StartTraefik starts Traefik, which asks with its ForwardAuth middleware. The
// first call on a machine builds it, for minutes.
func StartTraefik(ctx context.Context, o Options) (_ *Proxy, err error) {
	p, process, admin, dir, err := startTraefik(ctx, "Traefik", nil,
		"--providers.file.filename="+sitesFile, "--providers.file.watch=true")
	if err != nil {
		return nil, err
	}
	generation := 0
	p.serve = func(ctx context.Context, sites []Site) error {
		generation++
		config, err := render(traefikTemplate, map[string]any{"Options": o, "Sites": sites, "Generation": generation})
		if err != nil {
			return err
		}
		// Replaced as a whole: it is watched.
		if err := os.WriteFile(filepath.Join(dir, "next"), config, 0o600); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, sitesFile)); err != nil {
			return err
		}
		return process.await(ctx, func() error {
			got, err := status(ctx, http.DefaultClient, fmt.Sprintf("http://%s/api/http/routers/generation-%d@file", admin, generation), "")
			if err == nil && got != http.StatusOK {
				err = fmt.Errorf("status %d", got)
			}
			return err
		})
	}
	return p, nil
}

// IngressController is what the IngressClass of StartTraefikIngress says.
const IngressController = "keywright.dev/traefik-of-the-tests"

// StartTraefikIngress starts Traefik with its provider for Ingresses that were
// written for ingress-nginx: those of the API server, of classes that name
// IngressController. caFile is what it believes the gate's certificate by: it
// verifies it, which ingress-nginx does not. Serve waits for the sites' hosts,
// of which the Ingresses say the rest.
func StartTraefikIngress(ctx context.Context, kubeconfig, caFile string) (_ *Proxy, err error) {
	const flag = "--providers.kubernetesingressnginx"
	p, process, _, _, err := startTraefik(ctx, "Traefik Ingress", []string{"KUBECONFIG=" + kubeconfig, "SSL_CERT_FILE=" + caFile},
		flag+"=true", flag+".controllerclass="+IngressController, flag+".httpentrypoint=web", flag+".proxybodysize=16777216")
	if err != nil {
		return nil, err
	}
	p.serve = func(ctx context.Context, sites []Site) error {
		return process.await(ctx, func() error {
			for _, s := range sites {
				got, err := status(ctx, http.DefaultClient, "http://"+p.Address+"/", s.Host)
				if err == nil && got == http.StatusNotFound {
					err = fmt.Errorf("%s is not served", s.Host)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return p, nil
}

// startTraefik starts the program with a provider.
func startTraefik(ctx context.Context, name string, env []string, provider ...string) (_ *Proxy, _ *program, admin, dir string, err error) {
	binary, err := buildcache.Path(ctx, "traefik", nil)
	if err != nil {
		return nil, nil, "", "", err
	}
	ports, err := stack.FreePorts(2)
	if err != nil {
		return nil, nil, "", "", err
	}
	if dir, err = os.MkdirTemp("", "keywright-traefik-"); err != nil {
		return nil, nil, "", "", fmt.Errorf("making Traefik's folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, sitesFile), []byte("{}\n"), 0o600); err != nil {
		return nil, nil, "", "", errors.Join(err, os.RemoveAll(dir))
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(binary), "traefik-"), "-")
	p := newProxy(name, version, ports[0])
	process, err := runWith(dir, env, binary, append([]string{
		"--entryPoints.web.address=" + ports[0],
		// Headers such as X_Auth_Subject, which an application may take for
		// X-Auth-Subject.
		"--entryPoints.web.http.aliasHeadersStrategy=delete",
		"--entryPoints.traefik.address=" + ports[1],
		"--api.insecure=true",
		"--global.checkNewVersion=false", "--global.sendAnonymousUsage=false",
	}, provider...)...)
	if err != nil {
		return nil, nil, "", "", errors.Join(err, os.RemoveAll(dir))
	}
	p.stop = func() error {
		process.end()
		return os.RemoveAll(dir)
	}
	if err := process.await(ctx, func() error {
		_, err := status(ctx, http.DefaultClient, "http://"+ports[1]+"/api/version", "")
		return err
	}); err != nil {
		return nil, nil, "", "", errors.Join(err, p.Stop())
	}
	return p, process, ports[1], dir, nil
}
