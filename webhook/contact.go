package webhook

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// contact knows when the API server was last heard. Watches bring at least a
// bookmark about every minute, so that a longer silence means a gate that may
// be stale.
type contact struct {
	clock func() time.Time
	last  atomic.Int64 // Unix nanoseconds; 0: never
}

func (c *contact) heard() { c.last.Store(c.clock().UnixNano()) }

// age is how long ago the API server was last heard; ok is false for never.
func (c *contact) age() (age time.Duration, ok bool) {
	last := c.last.Load()
	if last == 0 {
		return 0, false
	}
	return max(c.clock().Sub(time.Unix(0, last)), 0), true
}

func (c *contact) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		// Anything but a success may come from a proxy, or from an API server
		// that does not know who asks: nothing is heard of objects then.
		if err != nil || response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusMultipleChoices {
			return response, err
		}
		c.heard()
		response.Body = &heardBody{ReadCloser: response.Body, contact: c}
		return response, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip is f.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type heardBody struct {
	io.ReadCloser
	contact *contact
}

func (b *heardBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.contact.heard()
	}
	return n, err
}
