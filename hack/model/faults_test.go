package model

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// faults are faults that could be written into the product. Each replaces one
// piece of its source, and the model has to notice.
var faults = map[string]struct{ file, old, new string }{
	"a key signs as soon as it is published": {
		"controllers/lifecycle/plan.go", "wait := v + e\n", "wait := time.Duration(0) * (v + e)\n",
	},
	"activation forgets the clock skew": {
		"controllers/lifecycle/plan.go", "wait := v + e\n", "wait := v\n\t_ = e\n",
	},
	"publication counts from the plan, not from when it was seen": {
		"controllers/lifecycle/plan.go", "shown := p.seen.Shown(k.ID)\n", "shown := p.seen.Shown(k.ID) || true\n",
	},
	"a publication that was withdrawn goes on counting": {
		"controllers/lifecycle/plan.go", "k.PublishedAt = time.Time{}\n", "_ = k\n",
	},
	"an end forgets how late signers are": {
		"controllers/lifecycle/plan.go", "Add(s + k.MaxTokenTTL + leeway + 2*e)", "Add(k.MaxTokenTTL + leeway + 2*e + 0*s)",
	},
	"an end forgets the leeway": {
		"controllers/lifecycle/plan.go", "Add(s + k.MaxTokenTTL + leeway + 2*e)", "Add(s + k.MaxTokenTTL + 2*e + 0*leeway)",
	},
	"an end forgets the clock skew": {
		"controllers/lifecycle/plan.go", "Add(s + k.MaxTokenTTL + leeway + 2*e)", "Add(s + k.MaxTokenTTL + leeway + 0*e)",
	},
	"an end is rounded down": {
		"controllers/lifecycle/plan.go", "return Ceil(k.DeactivatedAt.Add(s + k.MaxTokenTTL + leeway + 2*e))", "return k.DeactivatedAt.Add(s + k.MaxTokenTTL + leeway + 2*e).Truncate(time.Second)",
	},
	"an end counts from the decision, not from the signer Secret": {
		"controllers/lifecycle/plan.go", "if p.seen.SignerKeyID != active.ID {", "if p.seen.SignerKeyID == \"none\" {",
	},
	"an end comes nearer when a span is lowered": {
		"controllers/lifecycle/plan.go", "until.After(k.VerifyUntil)", "!until.Equal(k.VerifyUntil)",
	},
	"lowering maxTokenTTL lowers the limit of the active key": {
		"controllers/lifecycle/plan.go", "active.MaxTokenTTL = max(active.MaxTokenTTL, limit)", "active.MaxTokenTTL = limit",
	},
	"signers are told a raised maxTokenTTL at once": {
		"controllers/lifecycle/plan.go", "ttl.Current == 0 {", "ttl.Current < wanted {",
	},
	"editing the algorithm drops the active key": {
		"controllers/lifecycle/plan.go", "	k := p.ring.Standby()\n	if k == nil {\n		return\n	}\n	fresh", "	k := p.ring.Active()\n	if k == nil {\n		return\n	}\n	fresh",
	},
	"the private half outlives the switch": {
		"controllers/lifecycle/plan.go", "if !k.Algorithm.Symmetric() {\n			k.Private = nil", "if k.Algorithm.Symmetric() {\n			k.Private = nil",
	},
	"a clock that is wrong is trusted": {
		"controllers/lifecycle/plan.go", "case seen.Clock.Min > skew || seen.Clock.Max < -skew:", "case seen.Clock.Min > 100000*time.Hour+skew:",
	},
	"the sequence stays as it is": {
		"controllers/lifecycle/plan.go", "p.ring.Sequence++", "p.ring.Sequence = max(1, p.ring.Sequence)",
	},
	"a trigger is answered again and again": {
		"controllers/lifecycle/plan.go", "	p.ring.Trigger = p.want.Spec.Rotation.Trigger\n", "",
	},
	"every retired key is kept": {
		"controllers/lifecycle/plan.go", "if retired++; retired > limit {", "if retired++; retired > limit+1000 {",
	},
	"keys are forgotten while they verify": {
		"controllers/lifecycle/plan.go", "if p.ring.State(&p.ring.Keys[i], p.now) != v1alpha1.KeyRetired {\n			continue", "if p.ring.State(&p.ring.Keys[i], p.now) == v1alpha1.KeyPublished {\n			continue",
	},
	"the keyring is written over whatever is there": {
		"controllers/store.go", "	secret.Data = map[string][]byte{KeyringEntry: raw}\n", "	secret.Data = map[string][]byte{KeyringEntry: raw}\n	secret.ResourceVersion = \"\"\n",
	},
	"outputs derive from a keyring that was not stored": {
		"controllers/store.go", "	if err := r.put(ctx, secret, w.keyring != nil); err != nil {\n		return w.ring, false, err", "	if err := r.put(ctx, secret, w.keyring != nil); err != nil {\n		return plan.Keyring, false, err",
	},
	"publications are mended while the keyring cannot be written": {
		"controllers/store.go", "	case keyringErr != nil:\n		return scopeSigner\n", "",
	},
	"the JWKS leaves out the key that stands by": {
		"controllers/outputs.go", "if k.Public != nil {\n			doc.Keys", "if k.Public != nil && !k.ActivatedAt.IsZero() {\n			doc.Keys",
	},
	"the gate leaves out the key that stands by": {
		"webhook/keys.go", "if status.State == v1alpha1.KeyRetired || mentioned", "if status.State == v1alpha1.KeyRetired || status.State == v1alpha1.KeyPublished || mentioned",
	},
	"the gate does not look at a key's end": {
		"api/keyset/set.go", "return k.VerifyUntil.IsZero() || now.Before(k.VerifyUntil)", "return k.VerifyUntil.IsZero() || !now.IsZero()",
	},
	"the gate does not look at a token's length of life": {
		"webhook/token/token.go", "> t.Key.MaxTokenTTL", "> 1000*t.Key.MaxTokenTTL",
	},
}

// TestPlantedFaults compiles the model against the product with one fault at a
// time and demands that it fails.
func TestPlantedFaults(t *testing.T) {
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..")
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(root, fault.file)
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(source), fault.old); n != 1 {
				t.Fatalf("%s has the text to replace %d times, not once: keep the fault in step with the source", fault.file, n)
			}
			dir := t.TempDir()
			changed := filepath.Join(dir, filepath.Base(fault.file))
			if err := os.WriteFile(changed, []byte(strings.Replace(string(source), fault.old, fault.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
			if err != nil {
				t.Fatal(err)
			}
			overlayFile := filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			binary := filepath.Join(dir, "model.test")
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlayFile, "-o", binary, "./hack/model")
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("the fault does not compile: %v\n%s", err, out)
			}
			out, err := exec.CommandContext(t.Context(), binary, "-test.run", "^TestModel$", "-histories", fmt.Sprint(*faultHistories)).CombinedOutput() //nolint:gosec // built above
			if err == nil {
				t.Fatalf("the model did not notice in %d histories", *faultHistories)
			}
			if _, violation, found := strings.Cut(string(out), "seed "); found {
				line, _, _ := strings.Cut(violation, "\n")
				t.Logf("caught: seed %s", line)
			} else {
				t.Fatalf("the model failed in another way: %s", out)
			}
		})
	}
}
