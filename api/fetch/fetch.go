// Package fetch gets small public documents: bounded in time and size, without
// redirects, over https, and not from addresses that only the installation may
// look at. It keeps nothing, and does not try again.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Bounds of one document.
const (
	Timeout  = 5 * time.Second
	MaxBytes = 1 << 20
	// maxHeaderBytes bounds the header of the answer.
	maxHeaderBytes = 64 << 10
)

// Document gets one bounded document with a client that has a time-out and
// follows no redirects.
func Document(ctx context.Context, c *http.Client, target string) (body []byte, header http.Header, status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, nil, 0, errors.New("is not a URL")
	}
	response, err := c.Do(request)
	if err != nil {
		if cause := (*url.Error)(nil); errors.As(err, &cause) {
			err = cause.Err // without the URL once more
		}
		return nil, nil, 0, fmt.Errorf("cannot be reached: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, MaxBytes+1))
	if err != nil {
		return nil, nil, 0, fmt.Errorf("cannot be read: %w", err)
	}
	if len(body) > MaxBytes {
		return nil, nil, 0, fmt.Errorf("answers with more than %d bytes", MaxBytes)
	}
	return body, response.Header, response.StatusCode, nil
}

// Client fetches from public addresses. It may be used by several goroutines.
type Client struct {
	// AllowPrivate lets it dial addresses that are not public.
	AllowPrivate bool
	// Roots are whose certificates it trusts; nil: the system's.
	Roots *x509.CertPool
	// CAFile, if any, holds further authorities, in PEM. It is read for each
	// connection; while it cannot be, there is none.
	CAFile string

	once   sync.Once
	client *http.Client
}

// Check says what is wrong with CAFile.
func (c *Client) Check() error {
	_, err := c.roots()
	return err
}

// roots are Roots and what CAFile holds; nil: the system's.
func (c *Client) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return c.Roots, nil
	}
	raw, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, err
	}
	var all *x509.CertPool
	if c.Roots != nil {
		all = c.Roots.Clone()
	} else if all, err = x509.SystemCertPool(); err != nil {
		return nil, fmt.Errorf("reading the system's roots: %w", err)
	}
	if !all.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", c.CAFile)
	}
	return all, nil
}

// Get gets a document that is answered with 200.
func (c *Client) Get(ctx context.Context, target string) ([]byte, http.Header, error) {
	c.once.Do(func() {
		dialer := &net.Dialer{Timeout: Timeout, Control: func(_, address string, _ syscall.RawConn) error {
			if !c.AllowPrivate && !isPublic(address) {
				return ErrPrivate
			}
			return nil
		}}
		c.client = &http.Client{
			Timeout:       Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					roots, err := c.roots()
					if err != nil {
						return nil, err
					}
					config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
					return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
				},
				DisableKeepAlives: true,
				// Go's own bound is larger than that of a document.
				MaxResponseHeaderBytes: maxHeaderBytes,
			},
		}
	})
	if u, err := url.Parse(target); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, nil, errors.New("is not a whole https URL")
	}
	body, header, status, err := Document(ctx, c.client, target)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("answers with status %d", status)
	}
	if err != nil {
		return nil, nil, err
	}
	return body, header, nil
}

// ErrPrivate says that a URL leads to where only the installation may look.
var ErrPrivate = errors.New("its address is not public, and the installation does not allow that")

// global is where public IPv6 addresses are (RFC 4291 section 2.4).
var global = netip.MustParsePrefix("2000::/3")

// notPublic are ranges beyond those that netip names (RFC 6890, IANA's special
// purpose registries); tunnels among them lead to IPv4 addresses.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"),
}

func isPublic(address string) bool {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	ip := at.Addr().Unmap()
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && (ip.Is4() || global.Contains(ip)) &&
		!slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(ip) })
}
