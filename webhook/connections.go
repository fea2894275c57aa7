package webhook

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// connections counts those that are open, so that there are never more than
// the process has memory for, and closes those that are too slow.
type connections struct {
	max  int64
	open atomic.Int64
	// closed counts those that were closed unheard.
	closed atomic.Uint64

	// Deadlines are looked at once a second for all, as of now, in time since
	// start. A timer for each, set anew several times a request, costs more
	// than deciding does.
	start time.Time
	now   atomic.Int64
	mu    sync.Mutex
	all   map[*conn]struct{}
}

func newConnections(most int) *connections {
	return &connections{
		max: int64(most), all: map[*conn]struct{}{},
		start: time.Now(), //nolint:forbidigo // deadlines of sockets are real time
	}
}

// watch goes on until ctx ends.
func (c *connections) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			c.closeSlow(now.Sub(c.start))
		}
	}
}

// closeSlow closes those whose deadline is over at now.
func (c *connections) closeSlow(now time.Duration) {
	c.now.Store(int64(now))
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.all {
		if one.overdue(now) {
			_ = one.raw.Close() // which ends what waits on it
		}
	}
}

func (c *connections) add(one *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[one] = struct{}{}
}

func (c *connections) remove(one *conn) {
	c.open.Add(-1)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, one)
}

// crowded says whether there are more than there should be. Only then are those
// that came too late told to leave.
func (c *connections) crowded() bool { return c.open.Load() > c.max }

// counted is a listener whose connections are counted. Beyond the limit by the
// factor unheard they are closed at once; those before are marked.
type counted struct {
	net.Listener
	all     *connections
	unheard int64
	// tls, if set, is spoken.
	tls *tls.Config
	// unread is told of a request that could not be read.
	unread func(from string)
}

// Accept gives the next connection that is not one too many.
func (l *counted) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		n := l.all.open.Add(1)
		if n > l.unheard*l.all.max {
			l.all.open.Add(-1)
			l.all.closed.Add(1)
			_ = c.Close() // nothing is left to be done about it
			continue
		}
		out := &conn{Conn: c, raw: c, all: l.all, over: n > l.all.max, unread: l.unread}
		if l.tls != nil {
			out.tls = tls.Server(c, l.tls)
			out.Conn = out.tls
		}
		l.all.add(out)
		return out, nil
	}
}

// conn is a connection of the auth listener. net/http does not see that it
// speaks TLS, which would keep it from writing its own refusals through here.
type conn struct {
	net.Conn
	raw    net.Conn // below TLS
	all    *connections
	over   bool
	tls    *tls.Conn
	unread func(from string)
	closed sync.Once
	// readBy is when reading must be over, the TLS handshake as well, and
	// writing since when something is written; 0: neither. Both are in time
	// since all.start, in nanoseconds.
	readBy, writing atomic.Int64
	// ended says that reading has a deadline of its own, in the past.
	ended atomic.Bool

	once  sync.Once
	state *tls.ConnectionState
}

func (c *conn) overdue(now time.Duration) bool {
	readBy, writing := time.Duration(c.readBy.Load()), time.Duration(c.writing.Load())
	return readBy != 0 && now > readBy || writing != 0 && now > writing+writeTimeout
}

// SetReadDeadline keeps a deadline in the future for closeSlow. One in the past
// ends reading at once, as net/http wants it between two requests; the zero
// time takes either back.
func (c *conn) SetReadDeadline(t time.Time) error {
	by := max(t.Sub(c.all.start), 0)
	if int64(by) <= c.all.now.Load() {
		by = 0
	}
	c.readBy.Store(int64(by))
	switch past := by == 0 && !t.IsZero(); {
	case past:
		c.ended.Store(true)
		return c.Conn.SetReadDeadline(t)
	case c.ended.Load():
		c.ended.Store(false)
		return c.Conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// denial is the answer to what net/http cannot read as a request.
const denial = "HTTP/1.1 403 Forbidden\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

// Write turns the refusals that net/http writes by itself (400, 417, 431, 501,
// 505) into denials. A client can bring them about through a proxy, by control
// characters in a field or by many large fields, and ingress-nginx would make
// a 500 of them.
func (c *conn) Write(p []byte) (int, error) {
	c.writing.Store(max(c.all.now.Load(), 1))
	defer c.writing.Store(0)
	if c.unread == nil || !refusal(p) {
		return c.Conn.Write(p)
	}
	c.unread(c.RemoteAddr().String())
	if _, err := c.Conn.Write([]byte(denial)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// refusal says whether p is the beginning of an answer that no handler of the
// auth listener gives. All answers begin a Write.
func refusal(p []byte) bool {
	if len(p) < len("HTTP/1.1 400") || string(p[:5]) != "HTTP/" {
		return false
	}
	switch string(p[9:12]) {
	case "400", "417", "431", "501", "505":
		return true
	}
	return false
}

// CloseWrite lets net/http end its half, so that a client that is still
// sending reads the answer.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close closes it and counts it out.
func (c *conn) Close() error {
	c.closed.Do(func() { c.all.remove(c) })
	return c.Conn.Close()
}

func (c *conn) overLimit() bool { return c != nil && c.over }

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// tlsState is how TLS was agreed on, once something was read; nil without it.
func (c *conn) tlsState() *tls.ConnectionState {
	if c == nil || c.tls == nil {
		return nil
	}
	c.once.Do(func() {
		state := c.tls.ConnectionState()
		c.state = &state
	})
	return c.state
}
