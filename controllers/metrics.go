package controllers

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

var (
	rotations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keywright_signingkey_rotations_total",
		Help: "Keys that were activated.",
	}, []string{"namespace", "name"})
	keysByState = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "keywright_signingkey_keys",
		Help: "Keys by state.",
	}, []string{"namespace", "name", "state"})
	nextTransition = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "keywright_signingkey_next_transition_timestamp_seconds",
		Help: "When the next transition happens, in Unix time.",
	}, []string{"namespace", "name"})
	overdue = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "keywright_signingkey_overdue_seconds",
		Help: "For how long an activation has been due; 0 when none is.",
	}, []string{"namespace", "name"})
)

func init() { metrics.Registry.MustRegister(rotations, keysByState, nextTransition, overdue) }

// observeMetrics shows a SigningKey as it stands after a pass.
func observeMetrics(sk *v1alpha1.SigningKey, ring lifecycle.Keyring, plan lifecycle.Result, now time.Time) {
	counts := map[v1alpha1.KeyState]int{}
	for i := range ring.Keys {
		counts[ring.State(&ring.Keys[i], now)]++
	}
	counts[v1alpha1.KeyRevoked] = len(ring.Revoked)
	for _, state := range []v1alpha1.KeyState{v1alpha1.KeyPublished, v1alpha1.KeyActive, v1alpha1.KeyVerifying, v1alpha1.KeyRetired, v1alpha1.KeyRevoked} {
		keysByState.WithLabelValues(sk.Namespace, sk.Name, string(state)).Set(float64(counts[state]))
	}
	late := 0.0
	if a := plan.Activation; a != nil && !a.DueSince.IsZero() && ring.Active() != nil {
		late = max(0, now.Sub(a.DueSince).Seconds())
	}
	overdue.WithLabelValues(sk.Namespace, sk.Name).Set(late)
	if plan.Next != nil && !plan.Next.At.IsZero() {
		nextTransition.WithLabelValues(sk.Namespace, sk.Name).Set(float64(plan.Next.At.Unix()))
	} else {
		nextTransition.DeleteLabelValues(sk.Namespace, sk.Name)
	}
}

// forgetMetrics drops the series of a SigningKey that is gone.
func forgetMetrics(name types.NamespacedName) {
	labels := prometheus.Labels{"namespace": name.Namespace, "name": name.Name}
	for _, v := range []*prometheus.GaugeVec{keysByState, nextTransition, overdue} {
		v.DeletePartialMatch(labels)
	}
	rotations.DeletePartialMatch(labels)
}
