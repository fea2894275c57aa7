package callers

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"text/template"

	"github.com/keywright/keywright/hack/e2e/stack"
)

//go:embed Caddyfile.tmpl
var caddyfile string

var caddyTemplate = template.Must(template.New("Caddyfile").Parse(caddyfile))

// StartCaddy starts Debian's Caddy, which asks with forward_auth.
func StartCaddy(ctx context.Context, o Options) (_ *Proxy, err error) {
	binary, err := find("caddy")
	if err != nil {
		return nil, err
	}
	version, err := output(ctx, binary, "version")
	if err != nil {
		return nil, err
	}
	ports, err := stack.FreePorts(2)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keywright-caddy-")
	if err != nil {
		return nil, fmt.Errorf("making Caddy's folder: %w", err)
	}
	admin := ports[1]
	p := newProxy("Caddy", version, ports[0])
	// With no configuration it listens for one at its usual address.
	config, err := render(caddyTemplate, map[string]any{"Admin": admin, "Address": p.Address, "Options": o})
	if err == nil {
		err = os.WriteFile(dir+"/Caddyfile", config, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	process, err := run(dir, binary, "run", "--config", dir+"/Caddyfile", "--adapter", "caddyfile")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p.stop = func() error {
		process.end()
		return os.RemoveAll(dir)
	}
	p.serve = func(ctx context.Context, sites []Site) error {
		config, err := render(caddyTemplate, map[string]any{"Admin": admin, "Address": p.Address, "Options": o, "Sites": sites})
		if err != nil {
			return err
		}
		// The answer comes when the new configuration is in use.
		return process.await(ctx, func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+admin+"/load", bytes.NewReader(config))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "text/caddyfile")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close() //nolint:errcheck // it is read
			body, err := io.ReadAll(resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s: %s", resp.Status, body)
			}
			return err
		})
	}
	return p, nil
}
