package authz_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The reference lists every reason that there is in the code, and no other.
func TestReferenceListsEveryReason(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Reasons\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		listed = append(listed, m[1])
	}

	var known []string
	literal := func(e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			text, err := strconv.Unquote(l.Value)
			if err != nil {
				t.Fatal(err)
			}
			known = append(known, text)
		}
	}
	for _, file := range []string{"../token/errors.go", "../policy/denial.go", "decision.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit: // a class of fault, whose first member is its reason
				if name, ok := n.Type.(*ast.Ident); ok && (name.Name == "class" || name.Name == "Denial") {
					literal(n.Elts[0])
				}
			case *ast.ValueSpec:
				if strings.HasPrefix(n.Names[0].Name, "Reason") {
					literal(n.Values[0])
				}
			}
			return true
		})
	}
	slices.Sort(listed)
	slices.Sort(known)
	if diff := cmp.Diff(known, listed); diff != "" || len(known) < 40 {
		t.Errorf("reasons of the code and of docs/reference/operations.md (-code +docs):\n%s", diff)
	}
}
