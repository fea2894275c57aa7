package authz

import (
	"sync"
	"sync/atomic"
)

// Counters count decisions. They cost a decision one addition.
type Counters struct {
	allowed atomic.Uint64
	denied  sync.Map // reason to *atomic.Uint64
}

func (c *Counters) count(d *Decision) {
	if d.Allowed {
		c.allowed.Add(1)
		return
	}
	n, ok := c.denied.Load(d.Reason)
	if !ok {
		n, _ = c.denied.LoadOrStore(d.Reason, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

// Allowed says how many requests passed.
func (c *Counters) Allowed() uint64 { return c.allowed.Load() }

// Denied goes through the reasons of denials and how often each was given.
func (c *Counters) Denied(yield func(reason string, n uint64) bool) {
	c.denied.Range(func(reason, n any) bool {
		return yield(reason.(string), n.(*atomic.Uint64).Load())
	})
}
