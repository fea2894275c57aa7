package controllers

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// echoes remembers the newest resourceVersion that was written of each object.
// The watch events of those tell nothing new, and reconciling at them would go
// round the backoff of whatever is in the way.
type echoes struct {
	mu     sync.Mutex
	newest map[types.UID]echo
}

type echo struct {
	resourceVersion string
	owner           types.NamespacedName
}

// note remembers a write.
func (e *echoes) note(obj client.Object) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.newest == nil {
		e.newest = map[types.UID]echo{}
	}
	e.newest[obj.GetUID()] = echo{obj.GetResourceVersion(), ownerOf(obj)}
}

// forget drops what belongs to a SigningKey that is gone.
func (e *echoes) forget(owner types.NamespacedName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for uid, written := range e.newest {
		if written.owner == owner {
			delete(e.newest, uid)
		}
	}
}

func (e *echoes) has(obj client.Object) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	written, ok := e.newest[obj.GetUID()]
	return ok && written.resourceVersion == obj.GetResourceVersion()
}

// predicate lets through what is no echo.
func (e *echoes) predicate() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(ev event.CreateEvent) bool { return !e.has(ev.Object) },
		UpdateFunc: func(ev event.UpdateEvent) bool { return !e.has(ev.ObjectNew) },
	}
}
