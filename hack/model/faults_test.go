package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
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
		"controllers/lifecycle/plan.go", "k := p.ring.Standby()\n	if k == nil || k.Imported {", "k := p.ring.Active()\n	if k == nil || k.Imported {",
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
		"controllers/write.go", "	secret.Data = map[string][]byte{KeyringEntry: raw}\n", "	secret.Data = map[string][]byte{KeyringEntry: raw}\n	secret.ResourceVersion = \"\"\n",
	},
	"outputs derive from a keyring that was not stored": {
		"controllers/write.go", "	if err := r.put(ctx, secret, w.keyring != nil); err != nil {\n		return w.ring, false, err", "	if err := r.put(ctx, secret, w.keyring != nil); err != nil {\n		return plan.Keyring, false, err",
	},
	"publications are mended while the keyring cannot be written": {
		"controllers/write.go", "	case keyringErr != nil:\n		return scopeSigner\n", "",
	},
	"the JWKS leaves out the key that stands by": {
		"controllers/outputs.go", "if k.Public != nil {\n			doc.Keys", "if k.Public != nil && !k.ActivatedAt.IsZero() {\n			doc.Keys",
	},
	"the gate leaves out the key that stands by": {
		"webhook/keys.go", "|| mentioned[status.KeyID] {", "|| mentioned[status.KeyID] || status.State == v1alpha1.KeyPublished {",
	},
	"the gate does not look at a key's end": {
		"api/keyset/set.go", "return k.VerifyUntil.IsZero() || now.Before(k.VerifyUntil)", "return k.VerifyUntil.IsZero() || !now.IsZero()",
	},
	"a lost keyring is made anew": {
		"controllers/lifecycle/plan.go", "	p.recover()\n", "",
	},
	"a revoked key comes back with an older keyring": {
		"controllers/lifecycle/recover.go", "case status.State == v1alpha1.KeyRevoked:", "case status.State == v1alpha1.KeyRevoked && status.KeyID == \"\":",
	},
	"a revoked key goes on": {
		"controllers/lifecycle/revoke.go", "case all, listed[k.ID],", "case all,",
	},
	"an older copy of the keyring reaches signers": {
		"controllers/write.go", "	case keyringErr != nil && w.behind():\n		return scopeNothing // it is an older copy, whose active key may be long retired\n", "",
	},
	"a key that a restore brought back signs at once": {
		"controllers/lifecycle/evidence.go", "			k.PublishedAt = time.Time{}\n", "			_ = k\n",
	},
	"a gate that hangs is not waited for": {
		"controllers/lifecycle/evidence.go", "return len(p.seen.Evidence.Late) == 0", "return true",
	},
	"the gate forgets keys that a restored status does not know": {
		"webhook/keys.go", "	keys = append(keys, l.keep(mentioned)...)\n", "	l.keep(mentioned)\n",
	},
	"the gate does not look at a token's length of life": {
		"webhook/token/token.go", "> t.Key.MaxTokenTTL", "> 1000*t.Key.MaxTokenTTL",
	},
}

// faultVariable names, in the environment of the planted model, the fault that
// shows.
const faultVariable = "MODEL_FAULT"

// TestPlantedFaults compiles the model once against a product that can have
// each of the faults, and demands that it fails with each.
func TestPlantedFaults(t *testing.T) {
	binary := buildPlanted(t)
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		t.Run(name, func(t *testing.T) {
			model := exec.CommandContext(t.Context(), binary, "-test.run", "^TestModel$", "-shrink", "0", "-histories", fmt.Sprint(*faultHistories)) //nolint:gosec // built above
			model.Env = append(os.Environ(), faultVariable+"="+name)
			out, err := model.CombinedOutput()
			if err == nil {
				t.Fatalf("the model did not notice in %d histories", *faultHistories)
			}
			_, violation, found := strings.Cut(string(out), ": seed ")
			if !found {
				t.Fatalf("the model failed in another way: %s", out)
			}
			line, _, _ := strings.Cut(violation, "\n")
			t.Logf("%s: caught by history %s", name, line)
		})
	}
}

// buildPlanted builds this package's tests with all faults in the product.
func buildPlanted(t *testing.T) (binary string) {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..")
	dir := t.TempDir()
	overlay := map[string]string{}
	put := func(path string, source []byte) {
		changed := filepath.Join(dir, strings.ReplaceAll(path, string(filepath.Separator), "_"))
		if err := os.WriteFile(changed, source, 0o600); err != nil {
			t.Fatal(err)
		}
		overlay[filepath.Join(root, path)] = changed
	}
	byFile := map[string][]string{}
	for name, fault := range faults {
		byFile[fault.file] = append(byFile[fault.file], name)
	}
	for path, names := range byFile {
		source, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		changed, pkg, err := plant(string(source), names)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		put(path, []byte(changed))
		put(filepath.Join(filepath.Dir(path), "planted.go"), fmt.Appendf(nil, "package %s\n\nimport \"os\"\n\nvar plantedFault = os.Getenv(%q)\n", pkg, faultVariable))
	}
	raw, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "model.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlayFile, "-o", binary, "./hack/model") //nolint:gosec // paths of our own
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("a fault does not compile: %v\n%s", err, out)
	}
	return binary
}

// plant gives each function of a source that has faults one more version for
// each of them, and lets plantedFault choose among these. Building all at once
// is what makes planting cheap: linking takes longer than noticing.
func plant(source string, names []string) (changed, pkg string, err error) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, "", source, parser.SkipObjectResolution)
	if err != nil {
		return "", "", err
	}
	at := func(pos token.Pos) int { return files.Position(pos).Offset }
	var errs []error
	var versions strings.Builder
	choices := map[int]string{} // by the place where a body begins
	for i, name := range names {
		fault := faults[name]
		start := strings.Index(source, fault.old)
		end := start + len(fault.old)
		fn := functionAround(parsed, func(fn *ast.FuncDecl) bool { return at(fn.Body.Lbrace) < start && end <= at(fn.Body.Rbrace) })
		if n := strings.Count(source, fault.old); n != 1 || fn == nil {
			errs = append(errs, fmt.Errorf("%q: the text to replace is there %d times, not once, or not in a function: keep the fault in step with the source", name, n))
			continue
		}
		version := fmt.Sprintf("%sFault%d", fn.Name.Name, i)
		choices[at(fn.Body.Lbrace)+1] += fmt.Sprintf("\n\tif plantedFault == %q {\n\t\t%s\n\t}", name, callOf(fn, version))
		fmt.Fprintf(&versions, "\n// %s: %s.\n%s%s%s%s%s\n", version, name,
			source[at(fn.Pos()):at(fn.Name.Pos())], version, source[at(fn.Name.End()):start], fault.new, source[end:at(fn.End())])
	}
	from := 0
	for _, place := range slices.Sorted(maps.Keys(choices)) {
		changed += source[from:place] + choices[place]
		from = place
	}
	return changed + source[from:] + versions.String(), parsed.Name.Name, errors.Join(errs...)
}

func functionAround(file *ast.File, within func(*ast.FuncDecl) bool) *ast.FuncDecl {
	for _, decl := range file.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil && within(fn) {
			return fn
		}
	}
	return nil
}

// callOf writes a call of another version of a function with its own
// arguments.
func callOf(fn *ast.FuncDecl, version string) string {
	var args []string
	for _, field := range fn.Type.Params.List {
		for _, name := range field.Names {
			args = append(args, name.Name)
		}
	}
	call := fmt.Sprintf("%s(%s)", version, strings.Join(args, ", "))
	if fn.Recv != nil {
		call = fn.Recv.List[0].Names[0].Name + "." + call
	}
	if fn.Type.Results == nil {
		return call + "\n\t\treturn"
	}
	return "return " + call
}
