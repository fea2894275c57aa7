package callers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"text/template"

	"github.com/keywright/keywright/hack/e2e/stack"
)

var (
	//go:embed haproxy.cfg.tmpl
	haproxyConfig string
	//go:embed gate.lua
	haproxyLua string

	haproxyTemplate = template.Must(template.New("haproxy.cfg").Funcs(template.FuncMap{"join": strings.Join}).Parse(haproxyConfig))
)

// StartHAProxy starts Debian's HAProxy, which asks from Lua (gate.lua): Debian
// has no package with an auth-request.
func StartHAProxy(ctx context.Context, o Options) (_ *Proxy, err error) {
	binary, err := find("haproxy")
	if err != nil {
		return nil, err
	}
	line, err := output(ctx, binary, "-v")
	if err != nil {
		return nil, err
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(line, "HAProxy version "), " ")
	ports, err := stack.FreePorts(1)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keywright-haproxy-")
	if err != nil {
		return nil, fmt.Errorf("making HAProxy's folder: %w", err)
	}
	if err := os.WriteFile(dir+"/gate.lua", []byte(haproxyLua), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p := newProxy("HAProxy", version, ports[0])
	var process *program
	generation := 0
	p.stop = func() error {
		if process != nil {
			process.end()
		}
		return os.RemoveAll(dir)
	}
	p.serve = func(ctx context.Context, sites []Site) error {
		generation++
		config, err := render(haproxyTemplate, map[string]any{
			"Dir": dir, "Address": p.Address, "Options": o, "Sites": sites, "Generation": generation,
		})
		if err != nil {
			return err
		}
		if err := os.WriteFile(dir+"/haproxy.cfg", config, 0o600); err != nil {
			return err
		}
		args := []string{"-db", "-f", dir + "/haproxy.cfg"}
		old := process
		if old != nil {
			// It takes the port over and lets the old one finish.
			args = append(args, "-sf", strconv.Itoa(old.cmd.Process.Pid))
		}
		if process, err = run(dir, binary, args...); err != nil {
			return err
		}
		if old != nil {
			// What it has open is idle connections of the tests.
			p.Client.CloseIdleConnections()
			if err := process.await(ctx, func() error {
				select {
				case <-old.done:
					return nil
				default:
					return errors.New("the process before goes on")
				}
			}); err != nil {
				return err
			}
		}
		return process.await(ctx, func() error {
			got, err := status(ctx, http.DefaultClient, "http://"+p.Address+"/.generation-"+strconv.Itoa(generation), "haproxy.invalid")
			if err == nil && got != http.StatusOK {
				err = fmt.Errorf("status %d", got)
			}
			return err
		})
	}
	return p, nil
}
