package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
)

// crash is what a controller that dies panics with.
type crash struct{}

var errInjected = errors.New("injected: the API server is away")

// write is one change of the store, as the observer of a world sees it.
type write struct {
	kind          string
	before, after client.Object // nil: did not, does not exist
}

// version is an object as it was from an instant on; nil object: deleted.
type version struct {
	from time.Time
	obj  client.Object
}

// store is an API server in memory with optimistic concurrency, generations,
// status as a subresource, and every past version. It stands in for the real
// one only to inject faults between any two writes; the behaviour of the real
// one is tested in hack/e2e.
type store struct {
	now     func() time.Time
	seq     int
	objects map[string]client.Object
	history map[string][]version
	changes []time.Time // of any object
	// beforeWrite may panic with crash, or return an error instead of the
	// write; afterWrite the same, when the write has been done. Both are told
	// the key of the object, or statusWrite of it.
	beforeWrite, afterWrite func(what string) error
	onWrite                 func(write)
	away                    bool
}

func newStore(now func() time.Time) *store {
	return &store{now: now, objects: map[string]client.Object{}, history: map[string][]version{}}
}

func kindOf(obj client.Object) string { return reflect.TypeOf(obj).Elem().Name() }

func storeKey(kind string, n types.NamespacedName) string { return kind + "/" + n.String() }

func keyOf(obj client.Object) string {
	return storeKey(kindOf(obj), client.ObjectKeyFromObject(obj))
}

// statusWrite names a write of an object's status.
func statusWrite(key string) string { return "Status of " + key }

func notFound(key string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: "objects"}, key)
}

func conflict(key string) error {
	return apierrors.NewConflict(schema.GroupResource{Resource: "objects"}, key, errors.New("it has been modified"))
}

func (s *store) set(obj client.Object, kind, key string, before client.Object) {
	s.seq++
	if obj != nil {
		obj.SetResourceVersion(strconv.Itoa(s.seq))
		s.objects[key] = obj
	} else {
		delete(s.objects, key)
	}
	s.history[key] = append(s.history[key], version{from: s.now(), obj: obj})
	if n := len(s.changes); n == 0 || s.changes[n-1].Before(s.now()) {
		s.changes = append(s.changes, s.now())
	}
	if s.onWrite != nil {
		s.onWrite(write{kind: kind, before: before, after: obj})
	}
}

// asOf is the object of a key as it was at an instant; nil: it was not there.
func (s *store) asOf(key string, at time.Time) client.Object {
	versions := s.history[key]
	for i := len(versions) - 1; i >= 0; i-- {
		if !versions[i].from.After(at) {
			return versions[i].obj
		}
	}
	return nil
}

// changed lists the instants from one on, and before another, at which
// anything changed.
func (s *store) changed(from, before time.Time) []time.Time {
	first, _ := slices.BinarySearchFunc(s.changes, from, time.Time.Compare)
	end, _ := slices.BinarySearchFunc(s.changes, before, time.Time.Compare)
	return s.changes[first:end]
}

// guarded runs one write of a controller with the faults around it.
func (s *store) guarded(what string, do func() error) error {
	if s.away {
		return errInjected
	}
	if s.beforeWrite != nil {
		if err := s.beforeWrite(what); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if s.afterWrite != nil {
		return s.afterWrite(what)
	}
	return nil
}

func (s *store) create(obj client.Object) error {
	key := keyOf(obj)
	if s.objects[key] != nil {
		return apierrors.NewAlreadyExists(schema.GroupResource{Resource: "objects"}, key)
	}
	stored := obj.DeepCopyObject().(client.Object)
	stored.SetGeneration(1)
	if sk, ok := stored.(*v1alpha1.SigningKey); ok {
		sk.Status = v1alpha1.SigningKeyStatus{}
	}
	s.set(stored, kindOf(obj), key, nil)
	obj.SetResourceVersion(stored.GetResourceVersion())
	return nil
}

// update replaces an object; an empty resourceVersion means: whatever is there.
func (s *store) update(obj client.Object, status bool) error {
	key := keyOf(obj)
	before := s.objects[key]
	if before == nil {
		return notFound(key)
	}
	if rv := obj.GetResourceVersion(); rv != "" && rv != before.GetResourceVersion() {
		return conflict(key)
	}
	stored := s.replacement(obj, before, status)
	s.set(stored, kindOf(obj), key, before)
	obj.SetResourceVersion(stored.GetResourceVersion())
	return nil
}

// replacement is what an update stores. It shares with the object before what
// stays the same: what is stored never changes.
func (s *store) replacement(obj, before client.Object, status bool) client.Object {
	sk, ok := obj.(*v1alpha1.SigningKey)
	if !ok {
		return obj.DeepCopyObject().(client.Object)
	}
	old := before.(*v1alpha1.SigningKey)
	if status {
		stored := *old
		stored.Status = wholeSeconds(sk.Status)
		return &stored
	}
	stored := sk.DeepCopy()
	stored.Status = old.Status
	if !reflect.DeepEqual(stored.Spec, old.Spec) {
		stored.Generation = old.Generation + 1
	}
	return stored
}

// wholeSeconds is a status as the real server gives it back: times in whole
// seconds. It does what throughJSON does, in a tenth of the time.
func wholeSeconds(in v1alpha1.SigningKeyStatus) v1alpha1.SigningKeyStatus {
	out := *in.DeepCopy()
	cutTimes(reflect.ValueOf(&out).Elem())
	return out
}

func cutTimes(v reflect.Value) {
	if v.Type() == reflect.TypeFor[metav1.Time]() {
		if t := v.Addr().Interface().(*metav1.Time); !t.IsZero() {
			t.Time = t.Truncate(time.Second).Local()
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			cutTimes(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			cutTimes(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			cutTimes(v.Field(i))
		}
	default: // holds no time
	}
}

// throughJSON takes a status through the form that the real server keeps.
func throughJSON(in v1alpha1.SigningKeyStatus) (out v1alpha1.SigningKeyStatus) {
	raw, err := json.Marshal(in)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

func (s *store) delete(key string) {
	if before := s.objects[key]; before != nil {
		s.set(nil, kindOf(before), key, before)
	}
}

// api is the store as a controller's client.
type api struct {
	client.Client // what the reconciler does not use panics
	*store
}

func (a api) Get(_ context.Context, name client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if a.away {
		return errInjected
	}
	key := storeKey(kindOf(into), name)
	obj := a.objects[key]
	if obj == nil {
		return notFound(key)
	}
	switch into := into.(type) {
	case *v1alpha1.SigningKey:
		obj.(*v1alpha1.SigningKey).DeepCopyInto(into)
	case *corev1.Secret:
		obj.(*corev1.Secret).DeepCopyInto(into)
	case *corev1.ConfigMap:
		obj.(*corev1.ConfigMap).DeepCopyInto(into)
	default:
		return fmt.Errorf("no %T in the model", into)
	}
	return nil
}

func (a api) Create(_ context.Context, obj client.Object, _ ...client.CreateOption) error {
	return a.guarded(keyOf(obj), func() error { return a.create(obj) })
}

func (a api) Update(_ context.Context, obj client.Object, _ ...client.UpdateOption) error {
	return a.guarded(keyOf(obj), func() error { return a.update(obj, false) })
}

func (a api) Status() client.SubResourceWriter { return statusAPI{store: a.store} }

type statusAPI struct {
	client.SubResourceWriter
	*store
}

func (a statusAPI) Update(_ context.Context, obj client.Object, _ ...client.SubResourceUpdateOption) error {
	return a.guarded(statusWrite(keyOf(obj)), func() error { return a.update(obj, true) })
}
