package authz

import (
	"iter"
	"maps"
)

const shards = 256

// table is an immutable map in shards: a change copies one shard and shares
// the others, so that it costs the same among ten objects and ten thousand.
type table[V any] struct {
	shards [shards]map[Ref]V
	size   int
}

// shard spreads names by FNV-1a.
func (r Ref) shard() int {
	h := uint32(2166136261)
	for i := range len(r.Namespace) {
		h = (h ^ uint32(r.Namespace[i])) * 16777619
	}
	h = (h ^ '/') * 16777619
	for i := range len(r.Name) {
		h = (h ^ uint32(r.Name[i])) * 16777619
	}
	return int((h ^ h>>16) % shards)
}

func (t *table[V]) get(ref Ref) (V, bool) {
	v, ok := t.shards[ref.shard()][ref]
	return v, ok
}

// with gives the table with changes made; a nil value takes the object away.
func (t *table[V]) with(changes map[Ref]*V) *table[V] {
	next := &table[V]{shards: t.shards, size: t.size}
	var copied [shards]bool
	for ref, v := range changes {
		i := ref.shard()
		if !copied[i] {
			copied[i] = true
			next.shards[i] = maps.Clone(next.shards[i])
			if next.shards[i] == nil {
				next.shards[i] = map[Ref]V{}
			}
		}
		_, had := next.shards[i][ref]
		if v == nil {
			if had {
				next.size--
			}
			delete(next.shards[i], ref)
			continue
		}
		if !had {
			next.size++
		}
		next.shards[i][ref] = *v
	}
	return next
}

func (t *table[V]) all() iter.Seq2[Ref, V] {
	return func(yield func(Ref, V) bool) {
		for _, shard := range t.shards {
			for ref, v := range shard {
				if !yield(ref, v) {
					return
				}
			}
		}
	}
}
