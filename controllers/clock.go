package controllers

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/controllers/lifecycle"
)

// ServerClock compares this machine's clock with the API server's, by the Date
// header of the answers that pass through it (RFC 9110 section 6.6.1).
type ServerClock struct {
	// Now is this machine's clock.
	Now  func() time.Time
	last atomic.Pointer[lifecycle.ClockBounds]
}

// Bounds says by how much this machine's clock is ahead, from the newest
// answer. Before the first answer it is the zero value.
func (c *ServerClock) Bounds() lifecycle.ClockBounds {
	if b := c.last.Load(); b != nil {
		return *b
	}
	return lifecycle.ClockBounds{}
}

// Wrap is a rest.Config transport wrapper.
func (c *ServerClock) Wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		sent := c.Now()
		resp, err := next.RoundTrip(req)
		if err != nil {
			return resp, err
		}
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			// The server read its clock somewhere between sent and now, and
			// cut the second's fraction off.
			c.last.Store(&lifecycle.ClockBounds{
				Min: sent.Sub(date.Add(time.Second)),
				Max: c.Now().Sub(date),
			})
		}
		return resp, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip is f.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
