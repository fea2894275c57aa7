package rotation

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/hack/e2e/stack"
)

// hindered is a SigningKey that is about to be hindered: with a previous key,
// an active one and one that stands by, and clients that go on all along.
type hindered struct {
	*live
	https   *http.Client
	standby string
	set     string // the JWKS
	stop    func() int
}

func newHindered(t *testing.T) *hindered {
	t.Helper()
	l := newLive(t, lasting())
	h := &hindered{live: l, https: httpsClient(t, l.gate)}
	l.controller = l.start("controller")
	l.standsBy()
	previous := l.turn("one")
	h.standby = l.standsBy(previous.kid)
	tokens := map[string]string{
		"a token of the previous key": previous.token(t, time.Now()),
		"a token of the active key":   l.app().token(t, time.Now()),
	}
	for what, raw := range tokens {
		l.passes(h.https, []*stack.Gate{l.gate}, what, raw)
	}
	_, h.set = l.served(h.https, l.gate)
	h.stop = l.keepAsking(h.https, []*stack.Gate{l.gate}, tokens)
	return h
}

// degraded waits until the condition says why, in the server's own words.
func (l *live) degraded(reason string, words ...string) {
	l.t.Helper()
	var last *metav1.Condition
	defer func() {
		if l.t.Failed() {
			l.t.Logf("Degraded is %+v", last)
		}
	}()
	await(l.t, time.Minute, "Degraded to say "+reason+" "+strings.Join(words, " ... "), func() bool {
		last = meta.FindStatusCondition(l.sk().Status.Conditions, v1alpha1.ConditionDegraded)
		if last == nil || last.Status != metav1.ConditionTrue || last.Reason != reason {
			return false
		}
		for _, w := range words {
			if !strings.Contains(last.Message, w) {
				return false
			}
		}
		return true
	})
}

// unchanged demands that the old set is served and that nothing was switched.
func (h *hindered) unchanged(when string) {
	h.t.Helper()
	if status, doc := h.served(h.https, h.gate); status != http.StatusOK || doc != h.set {
		h.t.Errorf("%s: the gate serves %d %s, want the old set %s", when, status, doc, h.set)
	}
	if active := h.active(); active == h.standby {
		h.t.Errorf("%s: there was a rotation", when)
	}
}

// recovers waits until what was held back has come about by itself.
func (h *hindered) recovers(since time.Time) {
	h.t.Helper()
	h.awaitActive(h.standby)
	h.t.Logf("recovered %s after the hindrance was gone", time.Since(since).Round(10*time.Millisecond))
	await(h.t, time.Minute, "Degraded to be over", func() bool { return h.condition(v1alpha1.ConditionDegraded) == "False AsWanted" })
	h.passes(h.https, []*stack.Gate{h.gate}, "a token of the new active key", h.app().token(h.t, time.Now()))
	h.t.Logf("%d requests meanwhile", h.stop())
}

// Row 30, RBAC lost: all of it, where nothing can be said but in the log, and
// the right to write Secrets alone.
func rightsLost(t *testing.T) {
	const role = "keywright-controller"
	h := newHindered(t)
	c := as(t, stack.ControllerAccount)
	mayGet := func() bool { return may(t, c, "get", "keywright.dev", "signingkeys", "", h.ns, name) }
	binding := &rbacv1.ClusterRoleBinding{}
	if err := h.api.Get(h.ctx, client.ObjectKey{Name: role}, binding); err != nil {
		t.Fatal(err)
	}
	again := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role, Labels: binding.Labels}, RoleRef: binding.RoleRef, Subjects: binding.Subjects}
	giveBack := func() {
		if err := theStack(t).Client.Create(t.Context(), again.DeepCopy()); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Error(err)
		}
	}
	defer giveBack() // every other test needs it
	h.delete(binding)
	await(t, 20*time.Second, "the rights to be gone", func() bool { return !mayGet() })
	began := time.Now()
	h.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = "without rights" })
	words := `signingkeys.keywright.dev \"shop\" is forbidden: User \"system:serviceaccount:keywright-system:keywright-controller\" cannot get resource \"signingkeys\"`
	await(t, 30*time.Second, "the log to say what the server said", func() bool {
		log, err := os.ReadFile(h.controller.Log)
		return err == nil && strings.Contains(string(log), words)
	})
	await(t, 30*time.Second, "a while without rights", func() bool { return time.Since(began) > 3*time.Second })
	h.unchanged("without any right")
	giveBack()
	back := time.Now()
	h.recovers(back)

	// Without the right to write Secrets alone, status says so.
	h = newHindered(t)
	rights := &rbacv1.ClusterRole{}
	if err := h.api.Get(h.ctx, client.ObjectKey{Name: role}, rights); err != nil {
		t.Fatal(err)
	}
	less := rights.DeepCopy()
	for i, rule := range less.Rules {
		for _, resource := range rule.Resources {
			if resource == "secrets" {
				less.Rules[i].Verbs = []string{"get", "list", "watch"}
			}
		}
	}
	mayWrite := func() bool { return may(t, c, "update", "", "secrets", "", h.ns, "shop-keyring") }
	give := func(rules []rbacv1.PolicyRule) {
		now := &rbacv1.ClusterRole{}
		err := theStack(t).Client.Get(t.Context(), client.ObjectKey{Name: role}, now)
		if err == nil {
			now.Rules = rules
			err = theStack(t).Client.Update(t.Context(), now)
		}
		if err != nil {
			t.Error(err)
		}
	}
	defer give(rights.Rules)
	give(less.Rules)
	await(t, 20*time.Second, "the right to write Secrets to be gone", func() bool { return !mayWrite() })
	h.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = "without the right to write Secrets" })
	h.degraded("KeyringNotWritten", `secrets "shop-keyring" is forbidden`, `User "system:serviceaccount:keywright-system:keywright-controller" cannot update resource "secrets"`)
	h.unchanged("without the right to write Secrets")
	if got := h.condition(v1alpha1.ConditionReady); got != "True KeyActive" {
		t.Errorf("without the right to write Secrets Ready is %s, and signers have a key", got)
	}
	give(rights.Rules)
	h.recovers(time.Now())
}

// Row 30, quota full: what has been deleted cannot come back, and a second
// SigningKey cannot begin.
func quotaFull(t *testing.T) {
	h := newHindered(t)
	h.delete(h.secret("shop-signing"))
	await(t, 20*time.Second, "the signer Secret to be restored", func() bool { // there is no quota yet
		return h.api.Get(h.ctx, client.ObjectKey{Namespace: h.ns, Name: "shop-signing"}, &corev1.Secret{}) == nil
	})
	full := corev1.ResourceList{corev1.ResourceSecrets: resource.MustParse("2"), corev1.ResourceConfigMaps: resource.MustParse("2")}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: h.ns, Name: "full"}, Spec: corev1.ResourceQuotaSpec{Hard: full}}
	if err := h.api.Create(h.ctx, quota); err != nil {
		t.Fatal(err)
	}
	quota.Status = corev1.ResourceQuotaStatus{Hard: full, Used: full} // no controller of this control plane counts
	if err := h.api.Status().Update(h.ctx, quota); err != nil {
		t.Fatal(err)
	}
	refused := func(obj client.Object) bool {
		err := h.api.Create(h.ctx, obj, client.DryRunAll)
		return err != nil && strings.Contains(err.Error(), "exceeded quota: full")
	}
	await(t, 20*time.Second, "the quota to count", func() bool {
		meta := metav1.ObjectMeta{Namespace: h.ns, Name: "probe"}
		return refused(&corev1.Secret{ObjectMeta: meta}) && refused(&corev1.ConfigMap{ObjectMeta: meta})
	})
	h.delete(h.secret("shop-signing"))
	h.delete(h.jwks())
	h.degraded("JWKSConfigMapNotWritten", `configmaps "shop-jwks" is forbidden: exceeded quota: full, requested: configmaps=1, used: configmaps=2, limited: configmaps=2`,
		`secrets "shop-signing" is forbidden: exceeded quota: full, requested: secrets=1, used: secrets=2, limited: secrets=2`)
	if got := h.condition(v1alpha1.ConditionReady); got != "False SignerSecretNotWritten" {
		t.Errorf("with the signer Secret gone Ready is %s, want False SignerSecretNotWritten", got)
	}
	second := &live{world: &world{t: t, ctx: h.ctx, ns: h.ns, name: "second", api: h.api}, ctx: h.ctx}
	second.create(lasting(func(s *v1alpha1.SigningKeySpec) { s.JWKS.ConfigMapName = "second-jwks" }))
	second.degraded("KeyringNotWritten", `secrets "second-keyring" is forbidden: exceeded quota: full`)
	if got := second.sk().Status; len(got.Keys) > 0 || second.condition(v1alpha1.ConditionReady) != "False KeyringNotWritten" {
		t.Errorf("a SigningKey without a keyring has the keys %v and Ready %s", got.Keys, second.condition(v1alpha1.ConditionReady))
	}
	h.unchanged("with the quota full")
	h.delete(quota)
	gone := time.Now()
	await(t, time.Minute, "the signer Secret to be restored", func() bool {
		return h.api.Get(h.ctx, client.ObjectKey{Namespace: h.ns, Name: "shop-signing"}, &corev1.Secret{}) == nil
	})
	h.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = "quota" })
	await(t, time.Minute, "the second SigningKey to begin", func() bool { return second.condition(v1alpha1.ConditionReady) == "True KeyActive" })
	h.standsBy() // the JWKS was withdrawn: V counts anew
	h.recovers(gone)
}

// Row 30, an admission policy that refuses every write of a Secret.
func admissionRefuses(t *testing.T) {
	h := newHindered(t)
	const words = "no Secret is written during the freeze: ask the platform team"
	fail := admissionv1.Fail
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "freeze-" + h.ns},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
			}}}},
			Validations: []admissionv1.Validation{{Expression: "false", Message: words}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: policy.Name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			MatchResources: &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: h.ns}}},
		},
	}
	for _, obj := range []client.Object{policy, binding} {
		if err := h.api.Create(h.ctx, obj); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = theStack(t).Client.Delete(t.Context(), obj) }() // it is gone unless the test failed
	}
	await(t, 30*time.Second, "the policy to be in force", func() bool {
		err := h.api.Create(h.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.ns, Name: "probe"}}, client.DryRunAll)
		return err != nil && strings.Contains(err.Error(), words)
	})
	h.edit(func(s *v1alpha1.SigningKeySpec) { s.Rotation.Trigger = "frozen" })
	h.degraded("KeyringNotWritten", `secrets "shop-keyring" is forbidden`, words)
	h.unchanged("while Secrets are refused")
	if got := h.condition(v1alpha1.ConditionReady); got != "True KeyActive" {
		t.Errorf("while Secrets are refused Ready is %s, and signers have a key", got)
	}
	if got := h.condition(v1alpha1.ConditionRotated); got == "True UpToDate" {
		t.Errorf("while a rotation is refused Rotated is %s", got)
	}
	if got := h.key(h.standby).State; got != v1alpha1.KeyPublished {
		t.Errorf("while Secrets are refused status says %s of the standby", got)
	}
	h.delete(binding)
	h.delete(policy)
	gone := time.Now()
	h.recovers(gone)
}
