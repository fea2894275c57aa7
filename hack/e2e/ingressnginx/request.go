//go:build linux

package ingressnginx

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
)

const (
	httpPort  = 80
	httpsPort = 443
)

// newClient makes the client of Controller.Client.
func newClient(nginx netip.Addr) *http.Client {
	dial := func(ctx context.Context, port int) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", join(nginx, port))
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dial(ctx, httpPort)
			},
			DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				conn, err := dial(ctx, httpsPort)
				if err != nil {
					return nil, err
				}
				host, _, err := net.SplitHostPort(address)
				if err != nil {
					return nil, errors.Join(err, conn.Close())
				}
				// The controller's stand-in certificate is for no host at all; who
				// answers is known, as the connection cannot lead elsewhere.
				return tls.Client(conn, &tls.Config{ServerName: host, InsecureSkipVerify: true}), nil
			},
			MaxIdleConnsPerHost: 64,
		},
		// The tests look at what nginx answers, not at where that leads.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Client reaches nginx whatever the host of a URL is, with http at port 80 and
// https at port 443, so a request for "http://shop.example.com/" carries that
// Host. It follows no redirects. Cleaned by net/http as usual: RawRequest is for
// what it would not send.
func (c *Controller) Client() *http.Client { return c.client }

// URL is where nginx listens for HTTP, for example "http://198.18.0.2". A
// request to it needs the Host of an Ingress.
func (c *Controller) URL() string { return "http://" + c.network.peer.String() }

// RawRequest is the function RawRequest to this controller's nginx.
func (c *Controller) RawRequest(ctx context.Context, raw []byte) (*http.Response, error) {
	return RawRequest(ctx, join(c.network.peer, httpPort), raw)
}

// RawRequest sends bytes as they are to an address, on a connection of its own,
// and parses the one answer, its body read to the end: for absolute-form
// targets, paths with dot segments, repeated headers. The request should say
// "Connection: close".
func RawRequest(ctx context.Context, address string, raw []byte) (_ *http.Response, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connecting to the proxy: %w", err)
	}
	defer func() { err = errors.Join(err, ignoreClosed(conn.Close())) }()
	// The context's end ends reads and writes too.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write(raw); err != nil {
		return nil, fmt.Errorf("sending a raw request: %w", errors.Join(ctx.Err(), err))
	}
	// Whether an answer has a body depends on the method.
	method, _, _ := bytes.Cut(raw, []byte(" "))
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: string(method)})
	if err != nil {
		return nil, fmt.Errorf("reading the answer to a raw request: %w", errors.Join(ctx.Err(), err))
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer to a raw request: %w", errors.Join(ctx.Err(), err))
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// ignoreClosed forgives closing twice.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
