package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

// GateAnswer is what one ready gate says of a SigningKey.
type GateAnswer struct {
	// Name of the gate, for people.
	Name   string
	Report keyset.Report
	Err    error
}

// errNotLoaded says that a gate does not know a SigningKey yet.
var errNotLoaded = errors.New("has not loaded this SigningKey")

// askGates asks every ready gate; nil when none is to be asked.
func (r *SigningKeyReconciler) askGates(ctx context.Context, sk *v1alpha1.SigningKey) []GateAnswer {
	if !r.asksGates(sk) {
		return nil
	}
	return r.Gates(ctx, types.NamespacedName{Namespace: sk.Namespace, Name: sk.Name})
}

func (r *SigningKeyReconciler) asksGates(sk *v1alpha1.SigningKey) bool {
	return r.Gates != nil && sk.Spec.Propagation.Evidence.AsksGates()
}

// look takes a look at who knows the key that stands by, and leaves it in w.
func (r *SigningKeyReconciler) look(ctx context.Context, w *world, keyID string) {
	k := w.ring.Find(keyID)
	if k == nil {
		return
	}
	w.gates = r.askGates(ctx, w.sk)
	w.evidence = evidenceOf(w.gates, string(w.sk.UID))
	w.evidence.Confirmed = keyID
	w.evidence.Late = lateGates(w.gates, string(w.sk.UID), k)
	for _, url := range w.sk.Spec.Propagation.Evidence.URLs {
		if err := r.shownAt(ctx, url, k); err != nil {
			w.evidence.Late = append(w.evidence.Late, fmt.Sprintf("%s (%s)", url, cut(err.Error(), 200)))
		}
	}
}

// shownAt says whether a public document shows a key.
func (r *SigningKeyReconciler) shownAt(ctx context.Context, url string, k *lifecycle.Key) error {
	if r.Fetch == nil {
		return errors.New("this controller fetches no documents")
	}
	doc, err := r.Fetch(ctx, url)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(doc.Keys, func(shown keyset.PublicJWK) bool {
		return shown.Kid == k.ID && k.Public != nil && shown.Members == *k.Public
	}) {
		return errors.New("does not show it")
	}
	return nil
}

// evidenceOf puts together what gates say. A report about another SigningKey
// of that name counts for nothing.
func evidenceOf(answers []GateAnswer, uid string) lifecycle.Evidence {
	out := lifecycle.Evidence{Refused: map[string]bool{}, Seen: map[string]lifecycle.Sighting{}}
	for _, a := range answers {
		if a.Err != nil || a.Report.UID != uid {
			continue
		}
		out.Sequence = max(out.Sequence, a.Report.Sequence)
		for _, k := range a.Report.Keys {
			if k.Refused {
				out.Refused[k.KeyID] = true
			}
			seen := out.Seen[k.KeyID]
			if k.LastSeenAt.After(seen.LastAt) {
				seen.LastAt = k.LastSeenAt
			}
			if k.Late > seen.Late {
				seen.Late, seen.Issuer = k.Late, k.LateIssuer
			}
			out.Seen[k.KeyID] = seen
		}
	}
	return out
}

// lateGates names the gates that were not seen to know a key.
func lateGates(answers []GateAnswer, uid string, k *lifecycle.Key) (late []string) {
	for _, a := range answers {
		err := a.Err
		if err == nil && a.Report.UID != uid {
			err = errNotLoaded
		}
		if err == nil && !knows(a.Report, k) {
			err = errors.New("has not loaded it")
		}
		if err != nil {
			late = append(late, fmt.Sprintf("gate %s (%s)", a.Name, cut(err.Error(), 200)))
		}
	}
	return late
}

func knows(report keyset.Report, k *lifecycle.Key) bool {
	thumbprint := ""
	if k.Public != nil {
		pub, err := k.Public.PublicKey()
		if err != nil {
			return false
		}
		if thumbprint, err = keyset.Thumbprint(pub); err != nil {
			return false
		}
	}
	return slices.ContainsFunc(report.Keys, func(known keyset.KeyReport) bool {
		return known.KeyID == k.ID && known.Thumbprint == thumbprint && !known.Refused
	})
}

// lastSeen is when tokens of a key were last seen, of two accounts the later.
func lastSeen(before []v1alpha1.KeyStatus, evidence lifecycle.Evidence, keyID string) time.Time {
	at := evidence.Seen[keyID].LastAt
	for i := range before {
		if k := &before[i]; k.KeyID == keyID && k.LastSeenAt != nil && k.LastSeenAt.After(at) {
			at = k.LastSeenAt.Time
		}
	}
	return at
}

// signersMessage says who still signs with a key that no signer should have.
func signersMessage(k *lifecycle.Key, seen lifecycle.Sighting, p v1alpha1.Propagation) string {
	who := "an issuer without a name"
	if seen.Issuer != "" {
		who = seen.Issuer
	}
	return strings.Join([]string{
		fmt.Sprintf("tokens of %s for %d or more subjects were signed with key %s later than signerLag (%s) after it was replaced.", who, seen.Late, k.ID, p.SignerLag.Duration),
		fmt.Sprintf("Its retirement is put off once, to %s; make that signer read the Secret again, or raise signerLag", k.VerifyUntil.Format(time.RFC3339)),
	}, " ")
}
