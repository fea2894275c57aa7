package readme

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/hack/e2e/stack"
)

const operations = "docs/reference/operations.md"

// same compares two lists as sets.
func same(t *testing.T, what string, documented, real []string) {
	t.Helper()
	set := func(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }
	if diff := cmp.Diff(set(real), set(documented)); diff != "" {
		t.Errorf("%s: what there is and what %s says (-real +documented):\n%s", what, operations, diff)
	}
}

// found gives the first groups of all matches in files of the repository.
func found(t *testing.T, expression, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(stack.Root(), pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: no files (%v)", pattern, err)
	}
	var out []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		rel, err := filepath.Rel(stack.Root(), path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(expression).FindAllStringSubmatch(read(t, rel), -1) {
			out = append(out, m[1:]...)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s: nothing matches %s", pattern, expression)
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// TestFlags compares with what --help prints.
func TestFlags(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "keywright")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/keywright")
	build.Dir = stack.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, command := range []string{"controller", "webhook"} {
		help, err := exec.CommandContext(t.Context(), binary, command, "--help").Output()
		if err != nil {
			t.Fatal(err)
		}
		var real []string
		for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, +)?(--[a-z-]+)(.*)$`).FindAllStringSubmatch(string(help), -1) {
			if m[1] == "--help" {
				continue
			}
			real = append(real, m[1])
			if d := regexp.MustCompile(`\(default "?([^")]+)"?\)$`).FindStringSubmatch(m[2]); d != nil {
				row := regexp.MustCompile("(?m)^\\| `" + m[1] + "` \\| `" + regexp.QuoteMeta(d[1]) + "` \\|")
				if !row.MatchString(section(t, operations, "## Flags of `keywright "+command+"`")) {
					t.Errorf("%s %s: the default is %s", command, m[1], d[1])
				}
			}
		}
		same(t, "flags of "+command, rows(t, operations, "## Flags of `keywright "+command+"`", 0), real)
	}
}

// section is the text from a heading to the next one.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, page), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s: no heading %q", page, heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// TestReasons compares with the errors and constants that the reasons are of.
func TestReasons(t *testing.T) {
	var real []string
	real = append(real, found(t, `Err\w+ +error += &class\{"([a-z_]+)"`, "webhook/token/*.go")...)
	real = append(real, found(t, `Err\w+ += &Denial\{"([a-z_]+)"`, "webhook/policy/*.go")...)
	real = append(real, found(t, `Reason\w+ += "([a-z_]+)"`, "webhook/authz/*.go")...)
	// The first column only: a meaning quotes other things.
	same(t, "reasons", rows(t, operations, "## Reasons", 0), real)
}

func TestEvents(t *testing.T) {
	same(t, "events", rows(t, operations, "## Events", 0), found(t, `Eventf\(\w+\.sk, nil, "\w+", "(\w+)"`, "controllers/*.go"))
}

// TestConditions compares every reason of a condition.
func TestConditions(t *testing.T) {
	var real []string
	for _, expression := range []string{
		`(?:yes|no)\(v1alpha1\.Condition\w+, "(\w+)"`,
		`faults\.(?:add|write)\("(\w+)"`,
		`reason :?= "(\w+)"`,
		`fault\{reason: "(\w+)"`,
		`\{scope\w+, "(\w+)"`,
		`Reason: "(\w+)"\}`,
		`\.Reason, \w+\.Message = metav1\.ConditionFalse, "(\w+)"`,
		`\.Status, \w+\.Reason = metav1\.ConditionFalse, "(\w+)"`,
	} {
		real = append(real, found(t, expression, "controllers/*.go")...)
	}
	real = append(real, found(t, `Hold\w+ +Hold = "(\w*)"`, "controllers/lifecycle/*.go")...)
	documented := rows(t, operations, "## Conditions", 2)
	documented = append(documented, rows(t, operations, "## Conditions", 3)...)
	same(t, "reasons of conditions", documented, real)
	same(t, "conditions", rows(t, operations, "## Conditions", 1), found(t, `Condition\w+ = "(\w+)"`, "api/v1alpha1/signingkey_status.go"))
}
