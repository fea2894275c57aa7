package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// maxPasses bounds the passes of one reconcile. A rotation needs three; more
// are used up only by conflicts with another writer.
const maxPasses = 8

// SigningKeyReconciler keeps the keys of SigningKeys.
type SigningKeyReconciler struct {
	// Live reads and writes the API server, never a cache.
	Live client.Client
	// Namespace is the controller's own, where the Secret keywright-hmac is.
	Namespace string
	// MinInterval is the least time between two activations of a SigningKey.
	MinInterval time.Duration
	// Now is the clock.
	Now func() time.Time
	// Clock says how Now stands to the API server's clock.
	Clock func() lifecycle.ClockBounds
	// Gates asks every ready gate about a SigningKey; nil: gates are not asked.
	Gates func(context.Context, types.NamespacedName) []GateAnswer
	// Fetch gets the public document at a URL; nil: none is fetched.
	Fetch func(ctx context.Context, url string) (keyset.Document, error)
	// Events takes what has become durable.
	Events events.EventRecorder
	// WatchNamespaces are those whose resources count; all when empty.
	WatchNamespaces []string

	// written remembers what was written last, so that its echo in a watch
	// starts no reconcile.
	written echoes
}

// Reconcile brings one SigningKey up to date and comes back when its next
// transition is due.
func (r *SigningKeyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var gates []GateAnswer
	decoded := privateKeys{}
	for range maxPasses {
		// 1. What there is, live.
		w, err := r.load(ctx, req.NamespacedName, gates)
		if apierrors.IsNotFound(err) {
			forgetMetrics(req.NamespacedName)
			r.written.forget(req.NamespacedName)
			return ctrl.Result{}, r.sweepHMAC(ctx, req.NamespacedName)
		}
		if err != nil {
			return ctrl.Result{}, err
		}
		if !w.sk.DeletionTimestamp.IsZero() {
			return ctrl.Result{}, nil
		}

		gates, w.decoded = w.gates, decoded

		// 2. What should be; a look at verifiers, where only that is missing.
		now := r.Now()
		seen := w.observed(r.Clock())
		plan := lifecycle.Plan(r.wanted(w), w.ring, seen, now)
		if plan.Confirm != "" {
			r.look(ctx, w, plan.Confirm)
			seen.Evidence = w.evidence
			plan = lifecycle.Plan(r.wanted(w), w.ring, seen, now)
		}

		// 3. The truth, then all that derives from it.
		ring, stored, err := r.writeKeyring(ctx, w, plan)
		if isConflict(err) {
			continue
		}
		faults := w.faults
		if !w.ringFault {
			faults.hold(w, plan.Hold)
		}
		faults.write("KeyringNotWritten", err)
		within := scopeOf(w, plan, err)
		wrote := r.writeOutputs(ctx, w, ring, within, now, &faults)

		// 4. Status, once; then the events of what is now durable.
		changed, err := r.writeStatus(ctx, w, statusOf(w, ring, plan, within, faults, now))
		if isConflict(err) {
			continue
		}
		faults.add("StatusNotWritten", err)
		if stored {
			r.report(w, plan)
		}
		if changed {
			r.reportRetired(w, ring, now)
			r.reportDegraded(w, faults)
		}
		if within == scopeAll {
			observeMetrics(w.sk, ring, plan, now)
		}

		// 5. Again, until nothing changes; then when it is time.
		if err := faults.err(); err != nil {
			return ctrl.Result{}, err
		}
		if !stored && !wrote && !changed {
			return wake(plan, len(faults) > 0, now), nil
		}
	}
	return ctrl.Result{RequeueAfter: time.Second}, nil
}

func (r *SigningKeyReconciler) wanted(w *world) lifecycle.Wanted {
	return lifecycle.Wanted{Spec: w.sk.Spec, UID: string(w.sk.UID), MinInterval: r.MinInterval, AsksGates: r.asksGates(w.sk)}
}

// lookAgain is when to look again at what nothing tells the end of: a hold, or
// an object that belongs to someone else.
const lookAgain = 10 * time.Second

// longestWait bounds a wait, because the clock that measures it stands still
// while a machine is suspended.
const longestWait = time.Hour

// wake asks for the next reconcile at the plan's next transition.
func wake(plan lifecycle.Result, faulty bool, now time.Time) ctrl.Result {
	var after time.Duration
	if plan.Next != nil && !plan.Next.At.IsZero() {
		after = max(plan.Next.At.Sub(now), time.Millisecond)
	}
	if look := plan.LookAt; !look.IsZero() {
		if in := max(look.Sub(now), time.Millisecond); after == 0 || in < after {
			after = in
		}
	}
	late := plan.Activation != nil && !plan.Activation.DueSince.IsZero()
	if (faulty || late || plan.Hold != lifecycle.HoldNone) && (after == 0 || after > lookAgain) {
		after = lookAgain
	}
	return ctrl.Result{RequeueAfter: min(after, longestWait)}
}

// isConflict says that another writer was faster: load and plan again.
func isConflict(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
}

// fault is something in the way, as status says it.
type fault struct {
	reason, message string
	err             error // nil: nothing to retry until something changes
}

// faultList collects what is in the way, so that one failure delays nothing else.
type faultList []fault

// add notes a failed write or read. Conflicts are retried but not shown.
func (l *faultList) add(reason string, err error) {
	if err != nil {
		*l = append(*l, fault{reason: reason, message: err.Error(), err: err})
	}
}

// write notes what came of a write. What nothing but a person can mend is not
// retried.
func (l *faultList) write(reason string, err error) {
	switch {
	case errors.Is(err, errNotOurs):
		*l = append(*l, fault{reason: "OutputNotOurs", message: err.Error()})
	case errors.Is(err, errAltered):
		*l = append(*l, fault{reason: "OutputAltered", message: err.Error()})
	default:
		l.add(reason, err)
	}
}

// hold says why nothing may change. Nothing is retried: wake looks again.
func (l *faultList) hold(w *world, hold lifecycle.Hold) {
	message := ""
	switch hold {
	case lifecycle.HoldNone:
		return
	case lifecycle.HoldClock:
		message = "this controller's clock and the API server's differ by more than spec.propagation.clockSkew: set the clocks right"
	case lifecycle.HoldImport:
		message = "spec.import." + w.importErr.Error() + "; no key is made until then. Mend it, or create the SigningKey again without import"
	}
	*l = append(*l, fault{reason: string(hold), message: message})
}

// err joins what is worth a retry.
func (l faultList) err() error {
	var errs []error
	for _, f := range l {
		errs = append(errs, f.err)
	}
	return errors.Join(errs...)
}

// errNotOurs says that an object of the name exists and belongs to something
// else. It is never overwritten.
var errNotOurs = errors.New("exists and was not made for this SigningKey")

func notOurs(kind, name string) error {
	return fmt.Errorf("%s %s %w: it is left as it is; delete it if nobody needs it, or make a SigningKey whose outputs have other names", kind, name, errNotOurs)
}

// errAltered says that something on the API server changes what is written.
var errAltered = errors.New("is changed by something else while it is written (a mutating webhook or policy?)")

// report emits the transitions that the stored keyring records.
func (r *SigningKeyReconciler) report(w *world, plan lifecycle.Result) {
	for _, t := range plan.Transitions {
		switch t.Type {
		case v1alpha1.TransitionPublish:
			r.Events.Eventf(w.sk, nil, "Normal", "KeyPublished", "Publish", "key %s is published and stands by", t.KeyID)
		case v1alpha1.TransitionActivate:
			rotations.WithLabelValues(w.sk.Namespace, w.sk.Name).Inc()
			r.Events.Eventf(w.sk, nil, "Normal", "KeyActivated", "Activate", "key %s is chosen to sign", t.KeyID)
		case v1alpha1.TransitionRevoke:
			r.Events.Eventf(w.sk, nil, "Warning", "KeyRevoked", "Revoke", "%s", revokedMessage(w.sk, t.KeyID, plan.Keyring))
		case v1alpha1.TransitionRecover:
			r.Events.Eventf(w.sk, nil, "Warning", "KeyringRecovered", "Recover", "Secret %s was lost or replaced by an older copy: it is rebuilt from status and outputs, at sequence %d", w.sk.KeyringSecretName(), plan.Keyring.Sequence)
		case v1alpha1.TransitionExtend:
			r.Events.Eventf(w.sk, nil, "Normal", "TokenTTLRaised", "Extend", "signers may now sign tokens that live for %s", w.sk.Spec.MaxTokenTTL.Duration)
		}
	}
}

// revokedMessage says who refuses a revoked key from when on. Verifiers of
// others keep what they have fetched for as long as verifierLag.
func revokedMessage(sk *v1alpha1.SigningKey, keyID string, ring lifecycle.Keyring) string {
	reason, at := "", time.Time{}
	listed := slices.IndexFunc(sk.Spec.RevokedKeys, func(r v1alpha1.RevokedKey) bool { return r.KeyID == keyID })
	switch before := sk.Spec.RevokeCreatedBefore; {
	case listed >= 0:
		reason = sk.Spec.RevokedKeys[listed].Reason
	case before != nil:
		reason = before.Reason
	}
	if reason != "" {
		reason = " (" + reason + ")"
	}
	for _, t := range ring.Revoked {
		if t.ID == keyID {
			at = t.RevokedAt
		}
	}
	p := sk.Spec.Propagation
	until := lifecycle.Ceil(at.Add(p.VerifierLag.Duration + p.ClockSkew.Duration))
	return fmt.Sprintf("key %s is revoked%s: every gate refuses it; verifiers that cache the JWKS may accept its tokens until %s", keyID, reason, until.Format(time.RFC3339))
}

// reportRetired emits the retirements between the status before and now. A
// retirement is not stored: it follows from a time that was.
func (r *SigningKeyReconciler) reportRetired(w *world, ring lifecycle.Keyring, now time.Time) {
	for _, before := range w.sk.Status.Keys {
		k := ring.Find(before.KeyID)
		ended := before.State == v1alpha1.KeyVerifying && before.VerifyUntil != nil && !now.Before(before.VerifyUntil.Time)
		if ended && (k == nil || ring.State(k, now) == v1alpha1.KeyRetired) {
			r.Events.Eventf(w.sk, nil, "Normal", "KeyRetired", "Retire", "key %s verifies nothing any more", before.KeyID)
		}
	}
}

// reportDegraded warns when something has come in the way, or something else.
func (r *SigningKeyReconciler) reportDegraded(w *world, faults faultList) {
	if len(faults) == 0 {
		return
	}
	before := meta.FindStatusCondition(w.sk.Status.Conditions, v1alpha1.ConditionDegraded)
	if before == nil || before.Status != metav1.ConditionTrue || before.Reason != faults[0].reason {
		r.Events.Eventf(w.sk, nil, "Warning", faults[0].reason, "Reconcile", "%s", cut(faults[0].message, 1000))
	}
}
