package webhook

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keywright/keywright/webhook/authz"
)

func TestWhatIsHeardIsTold(t *testing.T) {
	var got []string
	heard := &told[*corev1.Namespace]{
		set:   func(n *corev1.Namespace) { got = append(got, "set "+n.Name) },
		gone:  func(ref authz.Ref) { got = append(got, "gone "+ref.Name) },
		there: map[authz.Ref]bool{},
	}
	named := func(names ...string) (objects []any) {
		for _, name := range names {
			objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
		return objects
	}
	for _, step := range []struct {
		what   string
		do     func() error
		want   string
		synced bool
	}{
		{"a change before the list", func() error { return heard.Add(named("early")[0]) }, "set early", false},
		{"the list", func() error { return heard.Replace(named("early", "a", "b"), "1") }, "set a, set b, set early", true},
		{"a change", func() error { return heard.Update(named("a")[0]) }, "set a", true},
		{"a deletion", func() error { return heard.Delete(named("early")[0]) }, "gone early", true},
		{"a resync", heard.Resync, "", true},
		{"a list after the watch was cut off", func() error { return heard.Replace(named("b", "c"), "2") }, "gone a, set b, set c", true},
		{"an empty list", func() error { return heard.Replace(nil, "3") }, "gone b, gone c", true},
	} {
		got = nil
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		slices.Sort(got)
		if told := strings.Join(got, ", "); told != step.want || heard.synced.Load() != step.synced {
			t.Errorf("%s: told %q, synced %t, want %q, %t", step.what, told, heard.synced.Load(), step.want, step.synced)
		}
	}
	for name, do := range map[string]func(any) error{"add": heard.Add, "update": heard.Update, "delete": heard.Delete} {
		if do(&corev1.Secret{}) == nil {
			t.Errorf("%s takes an object of another kind", name)
		}
	}
}
