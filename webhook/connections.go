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
// the process has memory for.
type connections struct {
	max  int64
	open atomic.Int64
	// closed counts those that were closed unheard.
	closed atomic.Uint64
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
		out := &conn{Conn: c, all: l.all, over: n > l.all.max, unread: l.unread}
		if l.tls != nil {
			out.tls = tls.Server(c, l.tls)
			out.Conn = out.tls
			// Reading has the server's limit from the start, writing the
			// handshake has not.
			_ = c.SetWriteDeadline(time.Now().Add(writeTimeout)) //nolint:forbidigo // deadlines of sockets are real time
		}
		return out, nil
	}
}

// conn is a connection of the auth listener. net/http does not see that it
// speaks TLS, which would keep it from writing its own refusals through here.
type conn struct {
	net.Conn
	all    *connections
	over   bool
	tls    *tls.Conn
	unread func(from string)
	closed sync.Once
	// until is the deadline of writing.
	until time.Time

	once  sync.Once
	state *tls.ConnectionState
}

// denial is the answer to what net/http cannot read as a request.
const denial = "HTTP/1.1 403 Forbidden\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

// Write turns the refusals that net/http writes by itself (400, 417, 431, 501,
// 505) into denials. A client can bring them about through a proxy, by control
// characters in a field or by many large fields, and ingress-nginx would make
// a 500 of them.
func (c *conn) Write(p []byte) (int, error) {
	// Moved on only when half of it is over, which most writes are spared.
	if now := time.Now(); c.until.Sub(now) < writeTimeout/2 { //nolint:forbidigo // deadlines of sockets are real time
		c.until = now.Add(writeTimeout)
		if err := c.SetWriteDeadline(c.until); err != nil {
			return 0, err
		}
	}
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
	c.closed.Do(func() { c.all.open.Add(-1) })
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
