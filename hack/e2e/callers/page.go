package callers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/keywright/keywright/hack/e2e/buildcache"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// Shown is what a test fills in where docs/callers.md names things.
type Shown struct {
	// Gate is the gate's address, and App that of what it protects.
	Gate, App string
	// Policy, such as shop/orders, takes the place of the page's for HAProxy,
	// which can use none with rules.
	Policy string
	// CAFile is what the gate's certificate is verified against.
	CAFile string
	// Secret, CertFile and KeyFile prove to the gate who asks.
	Secret, CertFile, KeyFile string
}

// ShownHost is the host that the page's configurations serve.
const ShownHost = "orders.shop.example"

// ShownBlocks are the blocks of a section of docs/callers.md, with the lines
// that are for a gate which asks callers for a proof.
func ShownBlocks(section string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(stack.Root(), "docs", "callers.md"))
	if err != nil {
		return nil, err
	}
	_, text, ok := strings.Cut(string(raw), "\n## "+section+"\n")
	if !ok {
		return nil, fmt.Errorf("docs/callers.md has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var out []string
	for _, m := range shownBlock.FindAllStringSubmatch(text, -1) {
		out = append(out, shownProof.ReplaceAllString(m[1], "$1$2"))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("docs/callers.md shows nothing in section %q", section)
	}
	return out, nil
}

var (
	shownBlock = regexp.MustCompile("(?s)\n```text\n(.*?)```\n")
	shownProof = regexp.MustCompile(`(?m)^( *|\t*)# (.*(?:SECRET|/etc/gate/client\.).*)$`)
)

// StartShown starts the program of a section of docs/callers.md with what the
// section shows, and with nothing else than where to listen, what to write and
// whom to ask.
func StartShown(ctx context.Context, section string, s Shown) (_ *Proxy, err error) {
	program, ok := shownPrograms[section]
	if !ok {
		return nil, fmt.Errorf("nothing of section %q can be run", section)
	}
	blocks, err := ShownBlocks(section)
	if err != nil {
		return nil, err
	}
	ports, err := stack.FreePorts(1)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keywright-shown-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	p := newProxy(section+", as shown", "", ports[0])
	host, port, _ := strings.Cut(p.Address, ":")
	if !strings.Contains(strings.Join(blocks, ""), program.listen) {
		return nil, fmt.Errorf("section %q does not say %q", section, program.listen)
	}
	for i, block := range blocks {
		for _, r := range [...]struct{ shown, real string }{
			{"GATE", s.Gate}, {"SECRET", s.Secret}, {"/etc/gate/ca.crt", s.CAFile}, {"/etc/gate/client.crt", s.CertFile}, {"/etc/gate/client.key", s.KeyFile},
			{"orders:8080", s.App}, {"shop/signed-in", s.Policy}, {"/etc/haproxy", dir}, {program.listen, program.listens(host, port)},
		} {
			block = strings.ReplaceAll(block, r.shown, r.real)
		}
		blocks[i] = block
	}
	binary, args, err := program.write(ctx, dir, s.App, blocks)
	if err != nil {
		return nil, err
	}
	process, err := run(dir, binary, args...)
	if err != nil {
		return nil, err
	}
	p.stop = func() error {
		process.end()
		return os.RemoveAll(dir)
	}
	if err := process.await(ctx, func() error {
		// Without a token: the program is up, whatever the gate says.
		got, err := status(ctx, p.Client, "http://"+ShownHost+"/", "")
		if err == nil && got == http.StatusNotFound {
			err = fmt.Errorf("%s is not served", ShownHost)
		}
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil // HAProxy tries a gate that it does not believe again and again
		}
		return err
	}); err != nil {
		process.end()
		return nil, err
	}
	return p, nil
}

// shownPrograms run what the sections show.
var shownPrograms = map[string]struct {
	// listen is what the page says of where it listens, and listens what is
	// put in its place.
	listen  string
	listens func(host, port string) string
	// write writes the configuration and gives the command.
	write func(ctx context.Context, dir, app string, blocks []string) (binary string, args []string, err error)
}{
	"Plain nginx": {
		listen: "listen 80;", listens: func(host, port string) string { return "listen " + host + ":" + port + ";" },
		write: func(_ context.Context, dir, app string, blocks []string) (string, []string, error) {
			config := "daemon off;\npid " + dir + "/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
			for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				config += kind + "_temp_path " + dir + "/" + kind + ";\n"
			}
			config += "upstream orders { server " + app + "; }\n" + blocks[0] + "}\n"
			binary, err := find("nginx")
			return binary, []string{"-p", dir, "-c", dir + "/nginx.conf"}, errors.Join(err, os.WriteFile(dir+"/nginx.conf", []byte(config), 0o600))
		},
	},
	"Traefik": {
		listen: "address: :80\n", listens: func(host, port string) string { return "address: " + host + ":" + port + "\n" },
		write: func(ctx context.Context, dir, _ string, blocks []string) (string, []string, error) {
			if len(blocks) != 2 {
				return "", nil, fmt.Errorf("%d blocks, want the static and the dynamic part", len(blocks))
			}
			static := blocks[0] + "providers: {file: {filename: " + dir + "/dynamic.yaml}}\nglobal: {checkNewVersion: false, sendAnonymousUsage: false}\n"
			binary, err := buildcache.Path(ctx, "traefik", nil)
			return binary, []string{"--configFile=" + dir + "/static.yaml"}, errors.Join(err,
				os.WriteFile(dir+"/static.yaml", []byte(static), 0o600), os.WriteFile(dir+"/dynamic.yaml", []byte(blocks[1]), 0o600))
		},
	},
	"Caddy": {
		listen: "http://" + ShownHost + " {\n",
		listens: func(host, port string) string {
			return "{\n\tadmin off\n\tauto_https off\n}\nhttp://" + ShownHost + ":" + port + " {\n\tbind " + host + "\n"
		},
		write: func(_ context.Context, dir, _ string, blocks []string) (string, []string, error) {
			binary, err := find("caddy")
			return binary, []string{"run", "--config", dir + "/Caddyfile", "--adapter", "caddyfile"}, errors.Join(err,
				os.WriteFile(dir+"/Caddyfile", []byte(blocks[0]), 0o600))
		},
	},
	"HAProxy": {
		listen: "bind :80\n", listens: func(host, port string) string { return "bind " + host + ":" + port + "\n" },
		write: func(_ context.Context, dir, _ string, blocks []string) (string, []string, error) {
			binary, err := find("haproxy")
			return binary, []string{"-db", "-f", dir + "/haproxy.cfg"}, errors.Join(err,
				os.WriteFile(dir+"/gate.lua", []byte(haproxyLua), 0o600), os.WriteFile(dir+"/haproxy.cfg", []byte(blocks[0]), 0o600))
		},
	},
}
