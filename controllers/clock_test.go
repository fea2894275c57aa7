package controllers

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/controllers/lifecycle"
)

func TestServerClock(t *testing.T) {
	date := func(t time.Time) string { return t.UTC().Format(http.TimeFormat) }
	tests := map[string]struct {
		header string
		err    error
		took   time.Duration
		want   lifecycle.ClockBounds
	}{
		"clocks that agree": {
			header: date(noon), took: 20 * time.Millisecond,
			want: lifecycle.ClockBounds{Min: -time.Second, Max: 20 * time.Millisecond},
		},
		"ahead by an hour": {
			header: date(noon.Add(-time.Hour)), took: time.Second,
			want: lifecycle.ClockBounds{Min: time.Hour - time.Second, Max: time.Hour + time.Second},
		},
		"behind by an hour": {
			header: date(noon.Add(time.Hour)), took: time.Second,
			want: lifecycle.ClockBounds{Min: -time.Hour - time.Second, Max: -time.Hour + time.Second},
		},
		"a slow answer widens the bounds": {
			header: date(noon), took: time.Minute,
			want: lifecycle.ClockBounds{Min: -time.Second, Max: time.Minute},
		},
		"no date":        {},
		"another date":   {header: "yesterday"},
		"no answer":      {err: errors.New("connection refused")},
		"a date at zero": {header: "0"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			now := noon
			c := &ServerClock{Now: func() time.Time { return now }}
			if got := c.Bounds(); got != (lifecycle.ClockBounds{}) {
				t.Fatalf("bounds before the first answer = %+v", got)
			}
			var asked *http.Request
			wrapped := c.Wrap(roundTripper(func(req *http.Request) (*http.Response, error) {
				asked = req
				now = now.Add(tc.took)
				if tc.err != nil {
					return nil, tc.err
				}
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Date": {tc.header}}, Body: http.NoBody}, nil
			}))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example/version", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := wrapped.RoundTrip(req)
			if !errors.Is(err, tc.err) || asked != req || (err == nil && resp.StatusCode != http.StatusOK) {
				t.Errorf("the answer is changed: %v, %v", resp, err)
			}
			if resp != nil {
				_ = resp.Body.Close()
			}
			if diff := cmp.Diff(tc.want, c.Bounds()); diff != "" {
				t.Errorf("bounds (-want +got):\n%s", diff)
			}
		})
	}
}

func TestServerClockGoesByTheNewestAnswer(t *testing.T) {
	now, server := noon, noon.Add(-time.Hour)
	c := &ServerClock{Now: func() time.Time { return now }}
	wrapped := c.Wrap(roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{Header: http.Header{"Date": {server.Format(http.TimeFormat)}}, Body: http.NoBody}, nil
	}))
	for _, offset := range []time.Duration{time.Hour, 0, -time.Hour} {
		server = now.Add(-offset)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example/version", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := wrapped.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got, want := c.Bounds(), (lifecycle.ClockBounds{Min: offset - time.Second, Max: offset}); got != want {
			t.Errorf("bounds at %s ahead = %+v, want %+v", offset, got, want)
		}
	}
}
