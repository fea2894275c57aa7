package callers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// envoyAllowed are the request headers that the filter is told to pass on to
// the gate (allowed_headers), beside Authorization, which it always does.
var envoyAllowed = []string{"Authorization", "Cookie", "Origin", "Access-Control-Request-Method", "Sec-Websocket-Protocol"}

// StartEnvoy starts a stand-in for Envoy, which cannot be had as a package. It
// asks as the documentation of the ext_authz filter (http_service) says: the
// method and the Host of the request, path_prefix + path + query, no body, and
// the allowed headers; only 200 lets pass; the answer's allowed_upstream_headers
// replace those of the request; any other answer goes to the client with its
// status and WWW-Authenticate, a 5xx or no answer as 403 (status_on_error).
// Names with an underscore are dropped (headers_with_underscores_action), those
// with a dot by request_headers_to_remove.
func StartEnvoy(_ context.Context, o Options) (*Proxy, error) {
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL = &url.URL{Scheme: "http", Host: o.App, Opaque: r.In.RequestURI}
			r.Out.Host = r.In.Host
			for name, value := range r.In.Context().Value(identityKey{}).(map[string]string) {
				r.Out.Header.Set(name, value)
			}
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
	return startEnvoy("Envoy HTTP", func(s Site, config *tls.Config) (http.Handler, func() error, error) {
		gate := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 64}
		closeIdle := func() error {
			gate.CloseIdleConnections()
			return nil
		}
		return &envoyHTTP{Site: s, identity: o.Identity, gate: gate, forward: forward}, closeIdle, nil
	})
}

// startEnvoy starts a stand-in that serves each site by a filter of its own,
// which gets requests as Envoy's filters do: with their path in RequestURI.
func startEnvoy(name string, filter func(Site, *tls.Config) (_ http.Handler, stop func() error, _ error)) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the stand-in for Envoy: %w", err)
	}
	p := newProxy(name, "stand-in, ext_authz v3", listener.Addr().String())
	e := &router{}
	e.sites.Store(&map[string]envoySite{})
	server := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }() // until stop
	p.serve = func(_ context.Context, sites []Site) error {
		before, next := *e.sites.Load(), map[string]envoySite{}
		for _, s := range sites {
			if had, ok := before[s.Host]; ok && reflect.DeepEqual(had.Site, s) {
				next[s.Host] = had
				continue
			}
			config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // a certificate of the tests
			if s.CAFile != "" {
				pem, err := os.ReadFile(s.CAFile)
				if err != nil {
					return err
				}
				config = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"} //nolint:gosec // 1.2 at least
				config.RootCAs.AppendCertsFromPEM(pem)
			}
			handler, stop, err := filter(s, config)
			if err != nil {
				return err
			}
			next[s.Host] = envoySite{Site: s, filter: handler, stop: stop}
		}
		e.sites.Store(&next)
		return nil
	}
	p.stop = func() error {
		err := server.Close()
		for _, s := range *e.sites.Load() {
			err = errors.Join(err, s.stop())
		}
		return err
	}
	return p, nil
}

type identityKey struct{}

// target is what stands in the request line, without scheme and host.
func target(r *http.Request) string {
	if rest, ok := strings.CutPrefix(r.RequestURI, "http://"); ok {
		if at := strings.IndexByte(rest, '/'); at >= 0 {
			return rest[at:]
		}
		return "/"
	}
	return r.RequestURI
}

// router finds the filter of a host.
type router struct {
	sites atomic.Pointer[map[string]envoySite]
}

type envoySite struct {
	Site

	filter http.Handler
	stop   func() error
}

func (e *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, _ := strings.Cut(r.Host, ":")
	site, ok := (*e.sites.Load())[strings.TrimSuffix(strings.ToLower(host), ".")]
	r.RequestURI = target(r)
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case strings.Contains(r.RequestURI, "#"):
		w.WriteHeader(http.StatusBadRequest) // http_reject_path_with_fragment
	default:
		site.filter.ServeHTTP(w, r)
	}
}

// envoyHTTP is the filter with an http_service.
type envoyHTTP struct {
	Site

	identity []string
	gate     *http.Transport
	forward  *httputil.ReverseProxy
}

func (e *envoyHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name := range r.Header {
		// Of the headers with a dot only those that a route names.
		if strings.Contains(name, "_") || slices.ContainsFunc(e.identity, func(h string) bool {
			return strings.EqualFold(strings.ReplaceAll(name, ".", "-"), h)
		}) {
			delete(r.Header, name)
		}
	}
	answer, err := e.ask(r)
	if err != nil || answer.StatusCode >= http.StatusInternalServerError {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if answer.StatusCode != http.StatusOK {
		for _, name := range []string{"Www-Authenticate", "Location"} {
			if v := answer.Header.Get(name); v != "" {
				w.Header().Set(name, v)
			}
		}
		w.WriteHeader(answer.StatusCode)
		return
	}
	told := map[string]string{}
	for _, name := range e.identity {
		if v, ok := answer.Header[http.CanonicalHeaderKey(name)]; ok {
			told[name] = v[0]
		}
	}
	e.forward.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, told)))
}

func (e *envoyHTTP) ask(r *http.Request) (*http.Response, error) {
	question := (&http.Request{
		Method: r.Method, Host: r.Host, Header: http.Header{},
		URL: &url.URL{Scheme: "https", Host: e.Gate, Opaque: "/auth/envoy/" + e.Namespace + "/" + e.Policy + r.RequestURI},
	}).WithContext(r.Context())
	for _, name := range envoyAllowed {
		if values := r.Header[name]; len(values) > 0 {
			// Envoy joins the lines of a header.
			sep := ","
			if name == "Cookie" {
				sep = "; "
			}
			question.Header[name] = []string{strings.Join(values, sep)}
		}
	}
	answer, err := e.gate.RoundTrip(question)
	if err != nil {
		return nil, fmt.Errorf("asking the gate: %w", err)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return answer, errors.Join(err, answer.Body.Close())
}
