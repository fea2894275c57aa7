package policy

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/token"
)

// targetRequest is what a caller makes of a raw target.
func targetRequest(t testing.TB, method, target string) *Request {
	t.Helper()
	path, query, ambiguous, err := ParseTarget(target)
	if err != nil {
		t.Fatal(err)
	}
	return &Request{Method: method, Path: path, HasPath: true, Ambiguous: ambiguous, Query: query}
}

func paths(all ...v1alpha1.PathMatch) []v1alpha1.Match { return []v1alpha1.Match{{Paths: all}} }

func TestSelectTakesTheFirstRuleThatMatches(t *testing.T) {
	p := mustCompile(t, v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{
		{Name: "health", Access: v1alpha1.AccessAnonymous, Match: []v1alpha1.Match{{Methods: []string{"GET", "HEAD"}, Paths: []v1alpha1.PathMatch{{Exact: "/healthz"}}}}},
		{Name: "admin-host", Access: v1alpha1.AccessDenied, Match: []v1alpha1.Match{{Hosts: []string{"Admin.Example.com.:443"}}}},
		{Name: "admin", Match: paths(v1alpha1.PathMatch{Prefix: "/admin"}, v1alpha1.PathMatch{Prefix: "/root/"})},
		{Name: "write", Match: []v1alpha1.Match{{Methods: []string{"PUT"}}, {Methods: []string{"POST"}, Paths: []v1alpha1.PathMatch{{Prefix: "/orders"}}}}},
		{Name: "other", Match: paths(v1alpha1.PathMatch{Prefix: "/public"})},
	}})
	for name, tc := range map[string]struct {
		method, host, path string
		want               string // rule or reason
	}{
		"method and exact path":                        {path: "/healthz", want: "health"},
		"the second method of a list":                  {method: "HEAD", path: "/healthz", want: "health"},
		"exact is exact at the end":                    {path: "/healthz/", want: "no_rule"},
		"exact is exact in case":                       {path: "/Healthz", want: "no_rule"},
		"an exact path with another method":            {method: "DELETE", path: "/healthz", want: "no_rule"},
		"a host, in its normal form":                   {host: "admin.example.com", path: "/x", want: "admin-host"},
		"a prefix itself":                              {path: "/admin", want: "admin"},
		"a prefix with a slash":                        {path: "/admin/", want: "admin"},
		"a prefix and more":                            {path: "/admin/x/y", want: "admin"},
		"a prefix is no beginning of a segment":        {path: "/administrator", want: "no_rule"},
		"a prefix that ends in a slash, without it":    {path: "/root", want: "admin"},
		"a prefix that ends in a slash, and more":      {path: "/root/x", want: "admin"},
		"a prefix that ends in a slash, other segment": {path: "/rooted", want: "no_rule"},
		"any entry of match is enough":                 {method: "PUT", path: "/anything", want: "write"},
		"all fields of an entry are needed":            {method: "POST", path: "/anything", want: "no_rule"},
		"all fields of an entry fit":                   {method: "POST", path: "/orders/1", want: "write"},
		"the earlier of two rules that match":          {method: "PUT", path: "/admin", want: "admin"},
		"dots glued to a public name":                  {path: "/public../x", want: "no_rule"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.method == "" {
				tc.method = "GET"
			}
			if tc.host == "" {
				tc.host = "shop.example.com"
			}
			rule, err := p.Select(&Request{Method: tc.method, Host: tc.host, HasHost: true, Path: tc.path, HasPath: true})
			got := Reason(err)
			if err == nil {
				got = rule.Name()
			}
			if got != tc.want {
				t.Errorf("%s %s%s falls under %s, want %s", tc.method, tc.host, tc.path, got, tc.want)
			}
		})
	}
}

func TestARuleForGETIsForHEADToo(t *testing.T) {
	p := mustCompile(t, v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{
		{Name: "head", Match: []v1alpha1.Match{{Methods: []string{"HEAD"}, Paths: []v1alpha1.PathMatch{{Exact: "/h"}}}}},
		{Name: "get", Match: []v1alpha1.Match{{Methods: []string{"GET"}}}},
		{Name: "rest"},
	}})
	for _, tc := range [][3]string{
		{"GET", "/", "get"}, {"HEAD", "/", "get"}, {"HEAD", "/h", "head"}, {"GET", "/h", "get"}, {"POST", "/", "rest"},
	} {
		rule, err := p.Select(&Request{Method: tc[0], Path: tc[1], HasPath: true})
		if err != nil || rule.Name() != tc[2] {
			t.Errorf("%s %s falls under %v, %v, want %s", tc[0], tc[1], rule, err, tc[2])
		}
	}
}

func TestTheRootPrefixFitsEverything(t *testing.T) {
	p := mustCompile(t, v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{{Name: "all", Match: paths(v1alpha1.PathMatch{Prefix: "/"})}}})
	for _, path := range []string{"/", "/a", "/a/b/"} {
		if _, err := p.Select(&Request{Path: path, HasPath: true}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestSelectDeniesWhatItCannotKnow(t *testing.T) {
	byPath := v1alpha1.Rule{Name: "public", Access: v1alpha1.AccessAnonymous, Match: paths(v1alpha1.PathMatch{Prefix: "/public"})}
	byHost := v1alpha1.Rule{Name: "host", Match: []v1alpha1.Match{{Hosts: []string{"a.example"}}}}
	byMethod := v1alpha1.Rule{Name: "delete", Access: v1alpha1.AccessDenied, Match: []v1alpha1.Match{{Methods: []string{"DELETE"}}}}
	all := v1alpha1.Rule{Name: "all"}
	for name, tc := range map[string]struct {
		rules     []v1alpha1.Rule
		normalize bool
		req       Request
		want      string // rule or reason
		wantErr   error
	}{
		"an unknown path does not fall to the next rule":            {rules: []v1alpha1.Rule{byPath, all}, want: "path_unknown", wantErr: ErrPathUnknown},
		"an ambiguous path does not fall to the next rule":          {rules: []v1alpha1.Rule{byPath, all}, req: Request{HasPath: true, Path: "/admin", Ambiguous: true}, want: "path_ambiguous", wantErr: ErrPathAmbiguous},
		"an ambiguous path is decided by where it normalises":       {rules: []v1alpha1.Rule{byPath, all}, normalize: true, req: Request{HasPath: true, Path: "/admin", Ambiguous: true}, want: "all"},
		"an unknown path is unknown where it normalises, too":       {rules: []v1alpha1.Rule{byPath, all}, normalize: true, req: Request{Ambiguous: true}, want: "path_unknown", wantErr: ErrPathUnknown},
		"an unknown host does not fall to the next rule":            {rules: []v1alpha1.Rule{byHost, all}, want: "host_unknown", wantErr: ErrHostUnknown},
		"a host that is contradicted counts as unknown":             {rules: []v1alpha1.Rule{byHost, all}, req: Request{Host: "a.example"}, want: "host_unknown", wantErr: ErrHostUnknown},
		"an unknown method does not fall to the next rule":          {rules: []v1alpha1.Rule{byMethod, all}, want: "method_unknown", wantErr: ErrMethodUnknown},
		"a method in small letters does not slip past a rule":       {rules: []v1alpha1.Rule{byMethod, all}, req: Request{Method: "delete"}, want: "method_unknown", wantErr: ErrMethodUnknown},
		"a method with a space does not slip past a rule":           {rules: []v1alpha1.Rule{byMethod, all}, req: Request{Method: "DELETE "}, want: "method_unknown", wantErr: ErrMethodUnknown},
		"a method that no rule names falls to the next rule":        {rules: []v1alpha1.Rule{byMethod, all}, req: Request{Method: "M-SEARCH"}, want: "all"},
		"what an earlier rule decides looks at nothing later":       {rules: []v1alpha1.Rule{all, byPath, byHost}, req: Request{Ambiguous: true}, want: "all"},
		"a rule that looks at nothing needs nothing":                {rules: []v1alpha1.Rule{all}, want: "all"},
		"an ambiguous path is no matter where only the host counts": {rules: []v1alpha1.Rule{byHost}, req: Request{HasHost: true, Host: "a.example", HasPath: true, Path: "/x", Ambiguous: true}, want: "host"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := v1alpha1.AccessPolicySpec{Rules: tc.rules}
			if tc.normalize {
				spec.AmbiguousPaths = v1alpha1.AmbiguousPathsNormalize
			}
			rule, err := mustCompile(t, spec).Select(&tc.req)
			got := Reason(err)
			if err == nil {
				got = rule.Name()
			} else if rule != nil {
				t.Errorf("a rule comes beside the denial %v", err)
			}
			if got != tc.want || !errors.Is(err, tc.wantErr) {
				t.Errorf("got %s (%v), want %s (%v)", got, err, tc.want, tc.wantErr)
			}
		})
	}
}

// The published faults of security.md, as a whole: a public rule before a
// protected one, in both ways to treat ambiguity.
func TestNoSpellingOfAProtectedPathIsPublic(t *testing.T) {
	spec := v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{
		{Name: "public", Access: v1alpha1.AccessAnonymous, Match: paths(v1alpha1.PathMatch{Prefix: "/public"})},
		{Name: "admin", Access: v1alpha1.AccessDenied, Match: paths(v1alpha1.PathMatch{Prefix: "/admin"})},
		{Name: "rest"},
	}}
	strict := mustCompile(t, spec)
	spec.AmbiguousPaths = v1alpha1.AmbiguousPathsNormalize
	normalizing := mustCompile(t, spec)
	for name, tc := range map[string]struct {
		target string
		// literal: only a server that decodes twice, cuts at '?', '#' or ';',
		// or folds Unicode goes to /admin: one for which Normalize is wrong.
		literal bool
	}{
		"dot segments":                  {target: "/public/../admin"},
		"encoded dot segments":          {target: "/public/%2e%2e/admin"},
		"half encoded dot segments":     {target: "/public/.%2E/admin"},
		"encoded slashes":               {target: "/public%2f..%2fadmin"},
		"encoded backslashes":           {target: "/public%5c..%5cadmin"},
		"backslashes":                   {target: `/public\..\admin`},
		"doubled slashes":               {target: "//admin"},
		"slashes and dots":              {target: "/public//..//admin"},
		"a climb above the root":        {target: "/public/../../admin"},
		"an encoded letter":             {target: "/%61dmin"},
		"a climb with a parameter":      {target: "/public/..;/admin"},
		"a climb with a long parameter": {target: "/public/..;a=b/admin"},
		"an encoded NUL":                {target: "/public/..%00/admin"},
		"overlong dots":                 {target: "/public/%c0%ae%c0%ae/admin"},
		"a public query":                {target: "/admin?x=/public"},
		"a public fragment":             {target: "/admin#/public"},
		"absolute form":                 {target: "http://x/public"},
		"double encoding":               {target: "/public/%252e%252e/admin", literal: true},
		"a path parameter":              {target: "/admin;x", literal: true},
		"an encoded path parameter":     {target: "/admin%3Bx", literal: true},
		"an encoded fragment":           {target: "/admin%23/public", literal: true},
		"an encoded question mark":      {target: "/admin%3f/public", literal: true},
		"fullwidth dots":                {target: "/public/%EF%BC%8E%EF%BC%8E/admin", literal: true},
	} {
		t.Run(name, func(t *testing.T) {
			path, query, ambiguous, err := ParseTarget(tc.target)
			if err != nil {
				return // refused: there is no request to decide
			}
			req := &Request{Method: "GET", Path: path, HasPath: true, Ambiguous: ambiguous, Query: query}
			if rule, err := strict.Select(req); err == nil && rule.Name() != "admin" {
				t.Errorf("%s falls under %s", tc.target, rule.Name())
			}
			if rule, err := normalizing.Select(req); !tc.literal && (err != nil || rule.Name() != "admin") {
				t.Errorf("%s falls under %v (%v) where the policy normalises", tc.target, rule, err)
			}
		})
	}
}

func TestEvaluate(t *testing.T) {
	text := func(s string) *string { return &s }
	scopes := func(s ...string) v1alpha1.Requirements { return v1alpha1.Requirements{Scopes: s} }
	claim := func(c v1alpha1.ClaimRequirement) v1alpha1.Requirements {
		return v1alpha1.Requirements{Claims: []v1alpha1.ClaimRequirement{c}}
	}
	equals := func(path, want string) v1alpha1.Requirements {
		return claim(v1alpha1.ClaimRequirement{Path: path, Equals: text(want)})
	}
	anyOf := func(path string, want ...string) v1alpha1.Requirements {
		return claim(v1alpha1.ClaimRequirement{Path: path, AnyOf: want})
	}
	allOf := func(path string, want ...string) v1alpha1.Requirements {
		return claim(v1alpha1.ClaimRequirement{Path: path, AllOf: want})
	}
	expr := func(cel string) v1alpha1.Requirements {
		return v1alpha1.Requirements{Expressions: []v1alpha1.Expression{{CEL: cel, Message: "needs it"}}}
	}
	const scope, mismatch, isFalse, broken = "insufficient_scope", "claim_mismatch", "expression_false", "expression_error"
	for name, tc := range map[string]struct {
		require v1alpha1.Requirements
		claims  *token.Claims
		want    string
	}{
		"no requirement is met by any token": {claims: claimsOf(object{})},
		"no token meets nothing":             {claims: nil, want: "unauthenticated"},

		"the one scope":                        {require: scopes("read"), claims: claimsOf(object{"scope": "read"})},
		"all scopes among others":              {require: scopes("read", "write"), claims: claimsOf(object{"scope": "a write b read"})},
		"one scope of two":                     {require: scopes("read", "write"), claims: claimsOf(object{"scope": "read"}), want: scope},
		"no scope at all":                      {require: scopes("read"), claims: claimsOf(object{}), want: scope},
		"an empty scope":                       {require: scopes("read"), claims: claimsOf(object{"scope": ""}), want: scope},
		"a scope that only begins so":          {require: scopes("read"), claims: claimsOf(object{"scope": "read:all"}), want: scope},
		"a scope that only ends so":            {require: scopes("read"), claims: claimsOf(object{"scope": "x:read"}), want: scope},
		"a scope in other case":                {require: scopes("read"), claims: claimsOf(object{"scope": "READ"}), want: scope},
		"scopes between commas are one":        {require: scopes("read"), claims: claimsOf(object{"scope": "read,write"}), want: scope},
		"scopes between tabs are one":          {require: scopes("read"), claims: claimsOf(object{"scope": "read\twrite"}), want: scope},
		"scope as a list is none":              {require: scopes("read"), claims: claimsOf(object{"scope": []any{"read"}}), want: scope},
		"scope as an object is none":           {require: scopes("read"), claims: claimsOf(object{"scope": map[string]any{"read": true}}), want: scope},
		"scp as a list":                        {require: scopes("read", "write"), claims: claimsOf(object{"scp": []any{"write", int64(1), "read"}})},
		"scp as a text":                        {require: scopes("read", "write"), claims: claimsOf(object{"scp": "write read"})},
		"an element of scp is not cut":         {require: scopes("read"), claims: claimsOf(object{"scp": []any{"read write"}}), want: scope},
		"one scope here, one there":            {require: scopes("read", "write"), claims: claimsOf(object{"scope": "read", "scp": []any{"write"}})},
		"scp as a number is none":              {require: scopes("1"), claims: claimsOf(object{"scp": int64(1)}), want: scope},
		"a number in scp is no scope":          {require: scopes("1"), claims: claimsOf(object{"scp": []any{int64(1)}}), want: scope},
		"two spaces between scopes do no harm": {require: scopes("read"), claims: claimsOf(object{"scope": "a  read"})},

		"equals a text":                       {require: equals("a", "x"), claims: claimsOf(object{"a": "x"})},
		"equals another text":                 {require: equals("a", "x"), claims: claimsOf(object{"a": "X"}), want: mismatch},
		"equals an absent claim":              {require: equals("a", "x"), claims: claimsOf(object{}), want: mismatch},
		"equals nothing is not absence":       {require: equals("a", ""), claims: claimsOf(object{}), want: mismatch},
		"equals nothing is not null":          {require: equals("a", ""), claims: claimsOf(object{"a": nil}), want: mismatch},
		"equals null by name is not null":     {require: equals("a", "null"), claims: claimsOf(object{"a": nil}), want: mismatch},
		"equals an empty text":                {require: equals("a", ""), claims: claimsOf(object{"a": ""})},
		"equals an integer":                   {require: equals("a", "42"), claims: claimsOf(object{"a": int64(42)})},
		"equals an integer below zero":        {require: equals("a", "-7"), claims: claimsOf(object{"a": int64(-7)})},
		"equals the text of an integer":       {require: equals("a", "42"), claims: claimsOf(object{"a": "42"})},
		"equals a fraction":                   {require: equals("a", "4.5"), claims: claimsOf(object{"a": 4.5})},
		"equals a whole number with a point":  {require: equals("a", "42"), claims: claimsOf(object{"a": 42.0})},
		"equals minus zero":                   {require: equals("a", "0"), claims: claimsOf(object{"a": math.Copysign(0, -1)})},
		"equals a small fraction":             {require: equals("a", "0.0000001"), claims: claimsOf(object{"a": 1e-7})},
		"equals other spelling of a number":   {require: equals("a", "42.0"), claims: claimsOf(object{"a": int64(42)}), want: mismatch},
		"equals the largest exact integer":    {require: equals("a", "9223372036854775807"), claims: claimsOf(object{"a": int64(9223372036854775807)})},
		"equals a number that is not exact":   {require: equals("a", "18446744073709551616"), claims: claimsOf(object{"a": 18446744073709551616.0}), want: mismatch},
		"equals true":                         {require: equals("a", "true"), claims: claimsOf(object{"a": true})},
		"equals false":                        {require: equals("a", "false"), claims: claimsOf(object{"a": false})},
		"equals true is not false":            {require: equals("a", "true"), claims: claimsOf(object{"a": false}), want: mismatch},
		"equals does not look into a list":    {require: equals("a", "x"), claims: claimsOf(object{"a": []any{"x"}}), want: mismatch},
		"equals does not print a list":        {require: equals("a", "[x]"), claims: claimsOf(object{"a": []any{"x"}}), want: mismatch},
		"equals does not print an object":     {require: equals("a", "map[b:x]"), claims: claimsOf(object{"a": map[string]any{"b": "x"}}), want: mismatch},
		"equals within an object":             {require: equals("a.b", "x"), claims: claimsOf(object{"a": map[string]any{"b": "x"}})},
		"equals a claim whose name has a dot": {require: equals("a.b", "x"), claims: claimsOf(object{"a.b": "x", "a": map[string]any{"b": "y"}})},
		"equals below a text":                 {require: equals("a.b", "x"), claims: claimsOf(object{"a": "x"}), want: mismatch},
		"any of, as a text":                   {require: anyOf("a", "x", "y"), claims: claimsOf(object{"a": "y"})},
		"any of, as a number":                 {require: anyOf("a", "1", "2"), claims: claimsOf(object{"a": int64(2)})},
		"any of, in a list":                   {require: anyOf("a", "x", "y"), claims: claimsOf(object{"a": []any{"z", "y"}})},
		"any of, a number in a list":          {require: anyOf("a", "1"), claims: claimsOf(object{"a": []any{"z", int64(1)}})},
		"any of, none":                        {require: anyOf("a", "x", "y"), claims: claimsOf(object{"a": []any{"z"}}), want: mismatch},
		"any of, an empty list":               {require: anyOf("a", "x"), claims: claimsOf(object{"a": []any{}}), want: mismatch},
		"any of, absent":                      {require: anyOf("a", "x"), claims: claimsOf(object{}), want: mismatch},
		"any of, a list in the list":          {require: anyOf("a", "x"), claims: claimsOf(object{"a": []any{[]any{"x"}}}), want: mismatch},
		"any of, a text with commas":          {require: anyOf("a", "x"), claims: claimsOf(object{"a": "x,y"}), want: mismatch},
		"any of, an object with the name":     {require: anyOf("a", "x"), claims: claimsOf(object{"a": map[string]any{"x": true}}), want: mismatch},
		"all of":                              {require: allOf("a", "x", "y"), claims: claimsOf(object{"a": []any{"y", "z", "x"}})},
		"all of, one is missing":              {require: allOf("a", "x", "y"), claims: claimsOf(object{"a": []any{"x"}}), want: mismatch},
		"all of, a text is no list":           {require: allOf("a", "x"), claims: claimsOf(object{"a": "x"}), want: mismatch},
		"all of, absent":                      {require: allOf("a", "x"), claims: claimsOf(object{}), want: mismatch},

		"an expression that is true":                 {require: expr("claims.amr.exists(m, m == 'mfa')"), claims: claimsOf(object{"amr": []any{"pwd", "mfa"}})},
		"an expression that is false":                {require: expr("claims.amr.exists(m, m == 'mfa')"), claims: claimsOf(object{"amr": []any{"pwd"}}), want: isFalse},
		"an expression over an absent claim":         {require: expr("claims.amr.exists(m, m == 'mfa')"), claims: claimsOf(object{}), want: broken},
		"an expression with an optional claim":       {require: expr("claims.?amr.orValue([]).exists(m, m == 'mfa')"), claims: claimsOf(object{}), want: isFalse},
		"an expression with has":                     {require: expr("has(claims.amr) && 'mfa' in claims.amr"), claims: claimsOf(object{}), want: isFalse},
		"an expression over a claim of another type": {require: expr("claims.level > 3"), claims: claimsOf(object{"level": "high"}), want: broken},
		"an expression that is a claim, true":        {require: expr("claims.admin"), claims: claimsOf(object{"admin": true})},
		"an expression that is a claim, false":       {require: expr("claims.admin"), claims: claimsOf(object{"admin": false}), want: isFalse},
		"an expression that is a claim, a text":      {require: expr("claims.admin"), claims: claimsOf(object{"admin": "true"}), want: broken},
		"an expression that is a claim, a number":    {require: expr("claims.admin"), claims: claimsOf(object{"admin": int64(1)}), want: broken},
		"an expression that is a claim, null":        {require: expr("claims.admin"), claims: claimsOf(object{"admin": nil}), want: broken},
		"an expression compares across number types": {require: expr("claims.level >= 3 && claims.level < 3.5"), claims: claimsOf(object{"level": int64(3)})},
		"an expression compares a fraction":          {require: expr("claims.level > 3"), claims: claimsOf(object{"level": 3.25})},
		"an expression divides by zero":              {require: expr("1 / claims.n == 1"), claims: claimsOf(object{"n": int64(0)}), want: broken},
		"an expression that costs too much":          {require: expr("claims.l.all(a, claims.l.all(b, claims.l.all(c, a + b + c >= 0)))"), claims: claimsOf(object{"l": manyNumbers(200)}), want: broken},
		"an expression over the path":                {require: expr("request.path.startsWith('/users/' + claims.sub + '/')"), claims: claimsOf(object{"sub": "u1"})},
		"an expression over the method and the host": {require: expr("request.method == 'GET' && request.host == 'a.example'"), claims: claimsOf(object{})},
		"an expression over the query, decoded":      {require: expr("request.query['q'] == ['a b', 'c']"), claims: claimsOf(object{})},
		"an expression over an absent parameter":     {require: expr("request.query['z'][0] == 'a'"), claims: claimsOf(object{}), want: broken},
		"an expression with a set":                   {require: expr("sets.contains(claims.groups, ['a', 'b'])"), claims: claimsOf(object{"groups": []any{"b", "a", "c"}})},
		"an expression over an object":               {require: expr("claims.org.id == 42"), claims: claimsOf(object{"org": map[string]any{"id": int64(42)}})},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustCompile(t, v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{{Name: "r", Require: &tc.require}}})
			req := targetRequest(t, "GET", "/users/u1/orders?q=a+b&q=c")
			req.Host, req.HasHost = "a.example", true
			rule, err := p.Select(req)
			if err != nil {
				t.Fatal(err)
			}
			err = rule.Evaluate(tc.claims, req)
			if Reason(err) != tc.want {
				t.Errorf("reason %q (%v), want %q", Reason(err), err, tc.want)
			}
			if (tc.want == isFalse || tc.want == broken) && !strings.Contains(fmt.Sprint(err), "needs it") {
				t.Errorf("%v does not have the expression's message", err)
			}
		})
	}
}

func manyNumbers(n int) []any {
	all := make([]any, n)
	for i := range all {
		all[i] = int64(i)
	}
	return all
}

func TestEvaluateFollowsTheRulesAccess(t *testing.T) {
	for name, tc := range map[string]struct {
		access v1alpha1.Access
		claims *token.Claims
		want   string
	}{
		"an anonymous rule lets everyone pass":     {access: v1alpha1.AccessAnonymous},
		"an authenticated rule asks for a token":   {access: v1alpha1.AccessAuthenticated, want: "unauthenticated"},
		"authenticated is the default":             {want: "unauthenticated"},
		"a denied rule lets nobody pass":           {access: v1alpha1.AccessDenied, want: "access_denied"},
		"a denied rule lets no token's owner pass": {access: v1alpha1.AccessDenied, claims: claimsOf(object{"sub": "root"}), want: "access_denied"},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustCompile(t, v1alpha1.AccessPolicySpec{Rules: []v1alpha1.Rule{{Name: "r", Access: tc.access}}})
			rule, err := p.Select(&Request{})
			if err != nil {
				t.Fatal(err)
			}
			if got := Reason(rule.Evaluate(tc.claims, &Request{})); got != tc.want {
				t.Errorf("reason %q, want %q", got, tc.want)
			}
		})
	}
}

func TestExpressionsDenyWhatTheyCannotKnow(t *testing.T) {
	for name, tc := range map[string]struct {
		cel       string
		normalize bool
		req       Request
		want      string
	}{
		"an unknown path": {cel: "request.path != '/admin'", want: "path_unknown"},
		"an unknown path in a branch that is not taken": {cel: "true || request.path == ''", want: "path_unknown"},
		"an ambiguous path":                             {cel: "request.path != '/admin'", req: Request{HasPath: true, Path: "/x", Ambiguous: true}, want: "path_ambiguous"},
		"an ambiguous path where the policy normalises": {cel: "request.path != '/admin'", normalize: true, req: Request{HasPath: true, Path: "/x", Ambiguous: true}},
		"an ambiguous path where only the query counts": {cel: "!('x' in request.query)", req: Request{HasPath: true, Path: "/x", Ambiguous: true}},
		"an unknown query":                              {cel: "!('x' in request.query)", want: "path_unknown"},
		"a query with a bad escape":                     {cel: "!('x' in request.query)", req: Request{HasPath: true, Path: "/", Query: "x=%zz"}, want: "expression_error"},
		"a query with a semicolon":                      {cel: "!('x' in request.query)", req: Request{HasPath: true, Path: "/", Query: "a=1;x=2"}, want: "expression_error"},
		"an unknown host":                               {cel: "request.host != 'admin.example'", want: "host_unknown"},
		"an unknown method":                             {cel: "request.method != 'DELETE'", want: "method_unknown"},
		"a method in small letters":                     {cel: "request.method != 'DELETE'", req: Request{Method: "delete"}, want: "method_unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := requireCEL(tc.cel)
			if tc.normalize {
				spec.AmbiguousPaths = v1alpha1.AmbiguousPathsNormalize
			}
			rule, err := mustCompile(t, spec).Select(&tc.req)
			if err != nil {
				t.Fatal(err)
			}
			if got := Reason(rule.Evaluate(claimsOf(object{}), &tc.req)); got != tc.want {
				t.Errorf("reason %q, want %q", got, tc.want)
			}
		})
	}
}

func TestDenialsQuoteNothingOfTheTokenOrTheQuery(t *testing.T) {
	const secret = "s3cret"
	for name, cel := range map[string]string{
		"a missing key":           "claims[claims.sub] == 1",
		"an operation that fails": "claims.sub + 1 == 2",
		"a conversion that fails": "int(claims.sub) == 1",
		"a time that is none":     "timestamp(claims.sub) > timestamp(0)",
		"a malformed query":       "'x' in request.query",
	} {
		t.Run(name, func(t *testing.T) {
			req := &Request{Path: "/", HasPath: true, Query: secret + "=%zz"}
			rule, err := mustCompile(t, requireCEL(cel)).Select(req)
			if err != nil {
				t.Fatal(err)
			}
			err = rule.Evaluate(claimsOf(object{"sub": secret}), req)
			if Reason(err) != "expression_error" {
				t.Errorf("reason %q, want expression_error", Reason(err))
			}
			if strings.Contains(fmt.Sprint(err), secret) {
				t.Errorf("%v quotes what it read", err)
			}
		})
	}
}

func TestReason(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"nothing":               {err: nil, want: ""},
		"a class":               {err: ErrNoRule, want: "no_rule"},
		"a wrapped class":       {err: fmt.Errorf("deciding: %w", ErrBadPath), want: "path_invalid"},
		"an error of elsewhere": {err: errors.New("x"), want: "internal"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Reason(tc.err); got != tc.want {
				t.Errorf("Reason(%v) = %q, want %q", tc.err, got, tc.want)
			}
		})
	}
}

func TestAPolicyIsSafeForConcurrentUse(t *testing.T) {
	spec := requireCEL("claims.groups.exists(g, g == request.path) && request.query['a'] == ['1']")
	spec.Identity = &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{{Name: "X-Groups", CEL: "claims.groups.join(',')"}}}
	p := mustCompile(t, spec)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				path := fmt.Sprintf("/%d", i)
				req := &Request{Path: path, HasPath: true, Query: "a=1"}
				claims := claimsOf(object{"groups": []any{"x", path}})
				rule, err := p.Select(req)
				if err != nil {
					t.Error(err)
					return
				}
				if err := rule.Evaluate(claims, req); err != nil {
					t.Error(err)
				}
				if headers, err := p.IdentityHeaders(claims, req); err != nil || headers[0].Value != "x,"+path {
					t.Errorf("headers %v, %v", headers, err)
				}
			}
		})
	}
	wg.Wait()
}
