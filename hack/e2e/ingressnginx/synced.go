//go:build linux

package ingressnginx

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
)

const (
	// statusPort is that of the server which template.awk adds.
	statusPort = 10248
	// maxValue is how much of a value template.awk writes.
	maxValue = 1500

	checksumComment = "# Configuration checksum: "
	servedComment   = "# served "
)

// WaitSynced returns when nginx serves each Ingress as given: its hosts and
// paths, its annotations of ingress-nginx, at least one endpoint behind each of
// its Services, and no worker with an older configuration that still takes
// connections. Without an Ingress it waits for nginx alone. It fails when the
// controller refuses an annotation or has ended, and with the context's error and
// what is missing.
//
// The controller does not reload for a change that makes no difference to it,
// such as a space in an annotation; that is never seen here either.
func (c *Controller) WaitSynced(ctx context.Context, ingresses ...*networkingv1.Ingress) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		pending := c.synced(ctx, ingresses)
		if pending == nil {
			return nil
		}
		if refused := (*refusedError)(nil); errors.As(pending, &refused) {
			return fmt.Errorf("waiting for ingress-nginx: %w", pending)
		}
		select {
		case <-c.exited:
			return fmt.Errorf("waiting for ingress-nginx: %w; its log:\n%s", errors.Join(errors.New("it ended"), c.exit), c.logTail())
		case <-ctx.Done():
			return fmt.Errorf("waiting for ingress-nginx: %w; %w; its log:\n%s", ctx.Err(), pending, c.logTail())
		case <-tick.C:
		}
	}
}

// refusedError says that waiting does not help.
type refusedError struct{ ingress, reason string }

func (e *refusedError) Error() string {
	return fmt.Sprintf("it refuses Ingress %s: %s", e.ingress, e.reason)
}

// synced is nil or says what is not there yet.
func (c *Controller) synced(ctx context.Context, ingresses []*networkingv1.Ingress) error {
	// The controller's view of its files, in its mount namespace.
	text, err := os.ReadFile(c.inside("etc/nginx/nginx.conf"))
	if err != nil {
		return fmt.Errorf("reading nginx.conf: %w", err)
	}
	file := parse(text)
	if file.checksum == "" {
		return errors.New("nginx.conf is still the one to start with")
	}
	backends := map[string]bool{}
	for _, ingress := range ingresses {
		if err := file.serves(ingress, backends); err != nil {
			return err
		}
	}
	running, err := c.status(ctx, "/checksum")
	if err != nil {
		return err
	}
	if running != file.checksum {
		return errors.New("nginx has not reloaded")
	}
	if n := c.workers(); n != 1 {
		return fmt.Errorf("%d workers take connections, want 1", n)
	}
	for _, backend := range slices.Sorted(maps.Keys(backends)) {
		if _, err := c.status(ctx, "/balancer/"+backend); err != nil {
			return fmt.Errorf("backend %s has no endpoint: %w", backend, err)
		}
	}
	return nil
}

// status asks the server that template.awk adds.
func (c *Controller) status(ctx context.Context, path string) (_ string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	// Its own connection each time: a kept one may be an old worker's.
	transport := &http.Transport{DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+join(c.network.peer, statusPort)+path, nil)
	if err != nil {
		return "", fmt.Errorf("asking nginx for %s: %w", path, err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("asking nginx for %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("asking nginx for %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asking nginx for %s: %s", path, resp.Status)
	}
	return strings.TrimSpace(string(body)), nil
}

// inside is a path as the controller sees it.
func (c *Controller) inside(path string) string {
	return filepath.Join("/proc", fmt.Sprint(c.process.Pid), "root", path)
}

// workers counts nginx's workers that take connections. One that was told to
// finish renames itself.
func (c *Controller) workers() int {
	titles, err := filepath.Glob(c.inside("proc/[0-9]*/cmdline"))
	if err != nil {
		return 0
	}
	working := 0
	for _, path := range titles {
		// A process may have ended since.
		title, err := os.ReadFile(path)
		if err == nil && string(bytes.TrimRight(title, "\x00 ")) == "nginx: worker process" {
			working++
		}
	}
	return working
}

// configuration files as template.awk annotates them.
type nginxConf struct {
	checksum string
	// ingresses by "namespace/name".
	ingresses map[string]*served
}

type served struct {
	backends    map[string]string // by host and path
	annotations map[string]string // hex of the value's start, by key
	denied      string
}

func parse(text []byte) nginxConf {
	file := nginxConf{ingresses: map[string]*served{}}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if checksum, ok := strings.CutPrefix(line, checksumComment); ok {
			file.checksum = checksum
		}
		rest, ok := strings.CutPrefix(line, servedComment)
		if !ok {
			continue
		}
		// Split, not Fields: the hex of an empty value is an empty field.
		fields := strings.Split(rest, " ")
		of := file.ingresses[fields[0]]
		if of == nil {
			of = &served{backends: map[string]string{}, annotations: map[string]string{}}
			file.ingresses[fields[0]] = of
		}
		switch {
		case len(fields) == 5 && fields[1] == "path":
			of.backends[fields[2]+" "+fields[3]] = fields[4]
		case len(fields) == 4 && fields[1] == "annotation":
			of.annotations[fields[2]] = fields[3]
		case len(fields) == 3 && fields[1] == "denied":
			of.denied = fields[2]
		case len(fields) == 3 && fields[1] == "annotation":
			of.annotations[fields[2]] = ""
		}
	}
	return file
}

// serves is nil if the Ingress is in the file as given; its backends are added
// to the given set.
func (f nginxConf) serves(ingress *networkingv1.Ingress, backends map[string]bool) error {
	id := ingress.Namespace + "/" + ingress.Name
	got := f.ingresses[id]
	if got == nil {
		return fmt.Errorf("ingress %s is not in nginx.conf", id)
	}
	want := map[string]string{}
	for key, value := range ingress.Annotations {
		if strings.HasPrefix(key, AnnotationPrefix) {
			want[key] = hex.EncodeToString([]byte(value[:min(len(value), maxValue)]))
		}
	}
	if diff := cmp.Diff(want, got.annotations); diff != "" {
		return fmt.Errorf("ingress %s has other annotations in nginx.conf, in hex (-want +got):\n%s", id, diff)
	}
	if got.denied != "" {
		reason, err := hex.DecodeString(got.denied)
		if err != nil {
			return fmt.Errorf("ingress %s: reading why it is denied: %w", id, err)
		}
		return &refusedError{ingress: id, reason: string(reason)}
	}
	for _, rule := range ingress.Spec.Rules {
		host := rule.Host
		if host == "" {
			host = "_"
		}
		if rule.HTTP == nil {
			continue
		}
		for _, path := range rule.HTTP.Paths {
			backend, ok := got.backends[host+" "+hex.EncodeToString([]byte(path.Path))]
			if !ok {
				return fmt.Errorf("ingress %s: host %s, path %s is not in nginx.conf", id, host, path.Path)
			}
			backends[backend] = true
		}
	}
	return nil
}

// join is net.JoinHostPort for a numeric port.
func join(host netip.Addr, port int) string {
	return netip.AddrPortFrom(host, uint16(port)).String()
}
