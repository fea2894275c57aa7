package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/token"
)

// An update of CEL that brings a function asks what that costs.
func TestEveryFunctionHasItsPrice(t *testing.T) {
	env, err := celEnv()
	if err != nil {
		t.Fatal(err)
	}
	for name := range env.Functions() {
		if _, ok := prices[name]; !ok {
			t.Errorf("the price of %s is not known", name)
		}
	}
}

func TestWhatExpressionsCost(t *testing.T) {
	const steps = 963 // of the program of (a?){240}b
	for name, tc := range map[string]struct {
		cel  string
		want uint64
	}{
		"a constant":                            {cel: "true", want: 0},
		"a claim":                               {cel: "claims.t", want: 2},
		"a claim in a claim":                    {cel: "claims.o.t", want: 3},
		"a comparison of short texts":           {cel: "claims.s == 'a'", want: 3},
		"a comparison stops at the shorter one": {cel: "claims.s == claims.a6k", want: 5},
		"a comparison of long texts":            {cel: "claims.a6k == claims.a6k", want: 5 + 600},
		"a comparison of lists":                 {cel: "claims.l == claims.l", want: 5 + 1000},
		"a loop":                                {cel: "claims.l.all(i, true)", want: 4004},
		"a loop in a loop":                      {cel: "lists.range(10).all(i, lists.range(10).all(j, true))", want: 583},
		"a member of a constant list":           {cel: "claims.s in ['a', 'b', 'c']", want: 3 + 3},
		"a loop over a map":                     {cel: "claims.o.all(k, true)", want: 8 + 1},
		"a loop over a constant map":            {cel: "{'a': 1, 'b': 2}.all(k, true)", want: 12 + 1 + 2},
		"a list of two":                         {cel: "(claims.l + claims.l).size() == 2000", want: 7 + 2000},
		"a member of a claim":                   {cel: "!(claims.s in claims.l)", want: 1006},
		"a short pattern":                       {cel: "claims.a6k.matches('^a+$')", want: 3 + 6001*6/4},
		"a pattern that becomes long, once":     {cel: "claims.a100.matches('(a?){240}b') || true", want: 4 + 101*steps/4},
		"a text that is put together":           {cel: "claims.a6k + claims.a6k != ''", want: 6 + 1200},
		"a text with another in it":             {cel: "'%s'.format([claims.a6k]) != ''", want: 6 + 32 + 4*602},
		"a list that is joined":                 {cel: "[claims.a6k, claims.a6k].join(claims.a100) != ''", want: 11 + 1203 + 20},
		"a text that is replaced":               {cel: "claims.a100.replace('a', claims.a100) != ''", want: 6 + 20 + 1000},
		"a text that is cut":                    {cel: "claims.a100.split('').size() == 100", want: 5 + 10 + 101},
	} {
		t.Run(name, func(t *testing.T) {
			req := &Request{}
			err := evaluateOnce(t, requireCEL(tc.cel), req)
			if reason := Reason(err); reason != "" && reason != "expression_false" {
				t.Error(err)
			}
			if req.cost.spent != tc.want {
				t.Errorf("%s costs %d, want %d", tc.cel, req.cost.spent, tc.want)
			}
		})
	}
}

// costly are claims to make much of.
func costly() *token.Claims {
	return claimsOf(object{
		"t": true, "s": "s", "o": map[string]any{"t": true}, "l": manyNumbers(1000),
		"a100": strings.Repeat("a", 100), "a6k": strings.Repeat("a", 6000),
	})
}

func evaluateOnce(t *testing.T, spec v1alpha1.AccessPolicySpec, req *Request) error {
	t.Helper()
	rule, err := mustCompile(t, spec).Select(req)
	if err != nil {
		t.Fatal(err)
	}
	return rule.Evaluate(costly(), req)
}

// What would take long, or much memory, is not begun: it is known from what an
// operation is given.
func TestNoExpressionBurnsMoreThanTheLimit(t *testing.T) {
	repeat := func(n int, format string) string { // a value in the one before, n times over
		text := "claims.a6k"
		for i := range n {
			text = fmt.Sprintf(strings.ReplaceAll(format, "X", fmt.Sprintf("x%d", i)), text)
		}
		return text
	}
	tens := repeat(8, "[%s].map(X, [X, X, X, X, X, X, X, X, X, X])") // 10^8 texts in a few lists
	hundreds := repeat(3, "[%s].map(X, [X, X, X, X, X, X, X, X, X, X])[0]")
	parameters := ""
	for i := range 1000 {
		parameters += fmt.Sprintf("&%x", i)
	}
	request := &Request{
		Path: "/", HasPath: true, Query: "x=" + strings.Repeat("a", 4000) + parameters,
		Header: map[string][]string{"X-T": {strings.Repeat("a", 8000)}},
	}
	for name, cel := range map[string]string{
		"a pattern, in a loop":                "lists.range(1000).exists(i, claims.a6k.matches('(a?){240}b'))",
		"a pattern, once":                     "claims.a6k.matches('(a?){240}b')",
		"a pattern over a header":             "request.headers['x-t'].matches('(a?){240}b')",
		"a pattern over the query":            "request.query['x'][0].matches('(a?){240}b')",
		"a pattern with a dotted name":        ".matches(claims.a6k, '(a?){240}b')",
		"a pattern over any value":            "dyn(claims.a6k).matches('(a?){240}b')",
		"format, in a loop":                   "lists.range(1000).all(i, '%s%s%s%s'.format([claims.a6k, claims.a6k, claims.a6k, claims.a6k]) != '')",
		"format of claims, in a loop":         "lists.range(1000).all(i, '%s%s'.format([claims, claims]) != '')",
		"format of what shares its parts":     "'%s'.format([" + tens + "]) != ''",
		"format with many digits":             "lists.range(1000).all(i, '%.100f%.100f%.100f%.100f'.format([1.5, 1.5, 1.5, 1.5]) != '')",
		"texts that double":                   repeat(8, "[%s].map(X, X + X + X + X)[0]") + " != ''",
		"join of a long text many times":      "claims.l.map(i, claims.a6k).join(claims.a6k) != ''",
		"join in join":                        repeat(4, "[%s].map(X, claims.l.map(i, X).join())[0]") + " != ''",
		"replace that writes much":            "claims.a6k.replace('', claims.a6k) != ''",
		"replace in a loop":                   "claims.l.all(i, claims.a6k.replace('a', 'bb') != '')",
		"a search, place by place":            "claims.l.all(i, request.headers['x-t'].indexOf(claims.a6k + 'b') < 0)",
		"a search from the end":               "claims.l.all(i, request.headers['x-t'].lastIndexOf('b' + claims.a6k) < 0)",
		"a search in a loop":                  "claims.l.all(i, !request.headers['x-t'].contains(claims.a6k + 'b'))",
		"split into characters, in a loop":    "claims.l.all(i, claims.a6k.split('').size() > 0)",
		"quote, in a loop":                    "claims.l.all(i, strings.quote(claims.a6k) != '')",
		"capitals, in a loop":                 "claims.l.all(i, claims.a6k.upperAscii() != '')",
		"reverse, in a loop":                  "claims.l.all(i, claims.a6k.reverse() != '')",
		"equality of claims, in a loop":       "claims.l.all(i, claims == claims)",
		"equality of what shares its parts":   tens + " == " + tens,
		"inequality of what shares its parts": tens + " != " + tens,
		"membership of what shares its parts": tens + " in " + tens,
		"flatten of what shares its parts":    tens + ".flatten(20) == []",
		"distinct of what shares its parts":   "[" + tens + ", " + tens + "].distinct() == []",
		"a set of what shares its parts":      "sets.contains(" + tens + ", " + tens + ")",
		"sets":                                "claims.l.all(i, sets.equivalent(claims.l, claims.l))",
		"distinct":                            "claims.l.all(i, claims.l.distinct().size() > 0)",
		"sort, in a loop":                     "claims.l.all(i, claims.l.sort().size() > 0)",
		"sort by texts, in a loop":            "claims.l.all(i, claims.l.sortBy(j, claims.a6k).size() > 0)",
		"membership in a list, in a loop":     "claims.l.all(i, !('x' in claims.l))",
		"a time zone, in a loop":              "claims.l.all(i, timestamp(0).getHours('Europe/Berlin') >= 0)",
		"a long list, in a loop":              "claims.l.all(i, [" + strings.Repeat("i,", 500) + "i].size() > 0)",
		"loops in loops":                      "claims.l.all(i, claims.l.all(j, claims.l.all(k, true)))",
		"lists that are put together":         "[claims.l].map(x, x" + strings.Repeat(" + x", 150) + ").all(y, y == y)",
		"lists that grow, one by one":         "[lists.range(90)]" + strings.Repeat(".map(x, x"+strings.Repeat(" + [1]", 150)+")", 3) + ".all(y, y == y)",
		"a loop over a map, in a loop":        "claims.l.all(i, request.query.exists(k, true))",
		"a search in an empty list, in loops": "[" + hundreds + "].all(x, claims.l.all(i, !(x in [x].slice(0, 0))))",
		"a set of nothing, in loops":          "[" + hundreds + "].all(x, claims.l.all(i, sets.contains(x, x.slice(0, 0)) && !sets.contains(x.slice(0, 0), x)))",
		"bytes and back, in a loop":           "claims.l.all(i, string(bytes(claims.a6k)) != '')",
	} {
		t.Run(name, func(t *testing.T) {
			req := *request
			spec := requireCEL(cel)
			var before, after runtime.MemStats
			rule, err := mustCompile(t, spec).Select(&req)
			if err != nil {
				t.Fatal(err)
			}
			claims := costly()
			runtime.ReadMemStats(&before)
			err = rule.Evaluate(claims, &req)
			runtime.ReadMemStats(&after)
			if Reason(err) != "expression_error" || !strings.Contains(err.Error(), errTooCostly.Error()) {
				t.Errorf("got %v, want %v", err, errTooCostly)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20 {
				t.Errorf("it took %d MiB", took>>20)
			}
		})
	}
}

// endless is a list that says how often it was looked at.
type endless struct {
	traits.Lister
	looked uint64
}

func (e *endless) Size() ref.Val             { return types.Int(1 << 40) }
func (e *endless) Iterator() traits.Iterator { return &endlessIterator{of: e} }

type endlessIterator struct {
	traits.Iterator
	of *endless
}

func (i *endlessIterator) HasNext() ref.Val { return types.True }
func (i *endlessIterator) Next() ref.Val    { i.of.looked++; return types.True }

// To find out what something costs is not free: what is looked at is paid for.
func TestAPriceIsNoDearerThanWhatItSays(t *testing.T) {
	const most = 10_000
	short, empty := types.String("s"), types.NewDynamicList(types.DefaultTypeAdapter, []string{})
	for name, price := range prices {
		if price == nil {
			continue
		}
		long := &endless{}
		for _, args := range [][]ref.Val{
			{long}, {long, short}, {short, long}, {long, empty}, {empty, long}, {long, long}, {short, short, long}, {long, short, short}, {short, empty, long},
		} {
			long.looked = 0
			cost := func() (cost uint64) {
				defer func() {
					if recover() != nil { // it takes more arguments
						long.looked = 0
					}
				}()
				return price(args, most)
			}()
			if long.looked > 10*(cost+10) {
				t.Errorf("%s of %d values costs %d, for which %d are looked at", name, len(args), cost, long.looked)
			}
			if long.looked > 20*most {
				t.Errorf("%s looks at %d values, where %d are too many", name, long.looked, most)
			}
		}
	}
}

// counted is a list that says how often an element was asked for by its place.
type counted struct {
	traits.Lister
	asked int
}

func (c *counted) Get(index ref.Val) ref.Val {
	c.asked++
	return c.Lister.Get(index)
}

// A list that is put together is no chain, of which all would be asked for each
// element.
func TestListsArePutTogetherOnce(t *testing.T) {
	e, fault := compileExpression(nil, "(claims.l + claims.l + claims.l).all(y, y == 'a')", cel.BoolType, nil)
	if fault != nil {
		t.Fatal(fault)
	}
	list := &counted{Lister: types.NewDynamicList(types.DefaultTypeAdapter, []string{"a", "a"})}
	out, _, err := e.program.Eval(map[string]any{variableClaims: map[string]any{"l": list}})
	if err != nil || out != types.True {
		t.Fatalf("got %v, %v", out, err)
	}
	if list.asked != 0 {
		t.Errorf("a part is asked %d times", list.asked)
	}
}

// A pattern that is refused is not compiled: its parts say that it is too long.
func TestALongPatternIsRefusedUnmade(t *testing.T) {
	for _, pattern := range []string{
		"(" + strings.Repeat(".", 240) + "){1000}", strings.Repeat("a{1000}", 36), strings.Repeat("[a-z]{999,}", 20),
		"(?i)" + strings.Repeat("k{500,1000}", 20),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		problem := checkPattern(pattern)
		runtime.ReadMemStats(&after)
		if !strings.Contains(problem, "at least") || after.TotalAlloc-before.TotalAlloc > 1<<20 {
			t.Errorf("%s: %q, in %d bytes", pattern, problem, after.TotalAlloc-before.TotalAlloc)
		}
	}
	for pattern, want := range map[string]uint64{"a{2,5}b": 11, "(a?){240}b": 963, "a{0}": 3, "": 3} {
		if got, err := programSteps(pattern); err != nil || got != want {
			t.Errorf("%q: %d steps, %v, want %d", pattern, got, err, want)
		}
	}
}

// The author of a policy has one budget, not one an expression.
func TestAllExpressionsOfADecisionShareOneLimit(t *testing.T) {
	const most = "lists.range(900).all(i, lists.range(20).all(j, true))" // costs 87305
	one := requireCEL(most)
	both := requireCEL(most)
	both.Rules[0].Require.Expressions = append(both.Rules[0].Require.Expressions, v1alpha1.Expression{CEL: most, Message: "needs it"})
	if err := evaluateOnce(t, one, &Request{}); err != nil {
		t.Error(err)
	}
	err := evaluateOnce(t, both, &Request{})
	if Reason(err) != "expression_error" || !strings.Contains(err.Error(), errTooCostly.Error()) {
		t.Errorf("two of them: %v, want %v", err, errTooCostly)
	}

	one.Identity = &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X-A", CEL: most + " ? 'a' : 'b'"}}}
	p, req := mustCompile(t, one), &Request{}
	rule, err := p.Select(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := rule.Evaluate(claimsOf(object{}), req); err != nil {
		t.Error(err)
	}
	if _, err := p.IdentityHeaders(claimsOf(object{}), req); Reason(err) != "identity_error" {
		t.Errorf("one of a rule and one of an identity header: %v, want %v", err, errTooCostly)
	}
	if _, err := p.IdentityHeaders(claimsOf(object{}), &Request{}); err != nil {
		t.Errorf("another decision: %v", err)
	}
}

func TestExpressionsAreNotShownMoreThanTheLimit(t *testing.T) {
	fits, over := strings.Repeat("a", maxShown), strings.Repeat("a", maxShown+1)
	for name, tc := range map[string]struct {
		cel, part string
		req       func(string) *Request
	}{
		"a header": {"request.headers['x-a'] != ''", "the header x-a", func(s string) *Request { return &Request{Header: map[string][]string{"X-A": {s}}} }},
		"a path":   {"request.path != ''", "the path", func(s string) *Request { return &Request{HasPath: true, Path: s} }},
		"a query":  {"request.query != {}", "the query", func(s string) *Request { return &Request{HasPath: true, Query: s} }},
		"a method": {"request.method != ''", "the method", func(s string) *Request { return &Request{Method: strings.ToUpper(s)} }},
		"a host":   {"request.host != ''", "the host", func(s string) *Request { return &Request{HasHost: true, Host: s} }},
	} {
		t.Run(name, func(t *testing.T) {
			if err := evaluateOnce(t, requireCEL(tc.cel), tc.req(fits)); err != nil {
				t.Error(err)
			}
			err := evaluateOnce(t, requireCEL(tc.cel), tc.req(over))
			if Reason(err) != "expression_error" || !strings.Contains(err.Error(), tc.part+" has more than the 8192 bytes") {
				t.Errorf("rule: %v", err)
			}
			_, err = mustCompile(t, headerCEL(tc.cel+" ? 'a' : 'b'")).IdentityHeaders(claimsOf(object{}), tc.req(over))
			if Reason(err) != "identity_error" || !strings.Contains(err.Error(), tc.part) {
				t.Errorf("identity header: %v", err)
			}
			if err := evaluateOnce(t, requireCEL("true"), tc.req(over)); err != nil {
				t.Errorf("an expression that does not look at it: %v", err)
			}
		})
	}
}

func TestAnAbsentHeaderIsNamed(t *testing.T) {
	for cel, want := range map[string]string{
		"request.headers['x-a'] == 'a'":                                "no such key: the header x-a is absent",
		"'x-b' in request.headers || request.headers['x-a'] == 'a'":    "no such key: the header x-a is absent",
		"'x-a' in request.headers || claims.missing == 'a'":            "no such key",
		"'x-a' in request.headers || claims[claims.a100] == 'a'":       "no such key",
		"'x-a' in request.headers || claims['missing'].startsWith('')": "no such key",
	} {
		err := evaluateOnce(t, requireCEL(cel), &Request{})
		if Reason(err) != "expression_error" || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%s: %v, want %s", cel, err, want)
		}
	}
}
