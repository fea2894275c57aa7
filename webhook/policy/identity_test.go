package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/webhook/token"
)

func TestIdentityHeadersAreAllSentInOrder(t *testing.T) {
	p := mustCompile(t, v1alpha1.AccessPolicySpec{Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{
		{Name: "X-Auth-Subject", Claim: "sub"},
		{Name: "X-Auth-Groups", CEL: "claims.groups.join(',')"},
		{Name: "X-Auth-Org", Claim: "org.id"},
		{Name: "X-Auth-Host", CEL: "request.host"},
	}}})
	req := &Request{Host: "a.example", HasHost: true}
	for name, tc := range map[string]struct {
		claims *token.Claims
		want   []string
	}{
		"all are known":            {claims: claimsOf(object{"sub": "u1", "groups": []any{"a", "b"}, "org": map[string]any{"id": int64(42)}}), want: []string{"u1", "a,b", "42", "a.example"}},
		"some are not known":       {claims: claimsOf(object{"sub": "u1"}), want: []string{"u1", "", "", "a.example"}},
		"nobody is authenticated":  {claims: nil, want: []string{"", "", "", ""}},
		"a token that says little": {claims: claimsOf(object{}), want: []string{"", "", "", "a.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := p.IdentityHeaders(tc.claims, req)
			if err != nil {
				t.Fatal(err)
			}
			var want []Header
			for i, header := range []string{"X-Auth-Subject", "X-Auth-Groups", "X-Auth-Org", "X-Auth-Host"} {
				want = append(want, Header{Field: NewField(header), Value: tc.want[i]})
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIdentityHeaderOfAClaim(t *testing.T) {
	const invalid = "identity_invalid"
	for name, tc := range map[string]struct {
		claim      any
		want       string
		wantReason string
	}{
		"a text":                             {claim: "u-17", want: "u-17"},
		"an empty text":                      {claim: "", want: ""},
		"null":                               {claim: nil, want: ""},
		"an integer":                         {claim: int64(-42), want: "-42"},
		"a fraction":                         {claim: 4.5, want: "4.5"},
		"a truth value":                      {claim: true, want: "true"},
		"a text with commas and spaces":      {claim: "Doe, John", want: "Doe, John"},
		"a text outside ASCII":               {claim: "Zoë 李", want: "Zoë 李"},
		"a list":                             {claim: []any{"a", int64(1), false}, want: "a,1,false"},
		"an empty list":                      {claim: []any{}, want: ""},
		"a line feed":                        {claim: "a\nX-Admin: yes", wantReason: invalid},
		"a carriage return":                  {claim: "a\rb", wantReason: invalid},
		"a NUL":                              {claim: "a\x00b", wantReason: invalid},
		"a tab":                              {claim: "a\tb", wantReason: invalid},
		"a DEL":                              {claim: "a\x7f", wantReason: invalid},
		"a C1 control":                       {claim: "a\u0085b", wantReason: invalid},
		"a line separator":                   {claim: "a\u2028b", wantReason: invalid},
		"a space before, which would vanish": {claim: " admin", wantReason: invalid},
		"a space behind, which would vanish": {claim: "admin ", wantReason: invalid},
		"a space alone":                      {claim: " ", wantReason: invalid},
		"a wide space before":                {claim: "\u00a0admin", wantReason: invalid},
		"a wide space behind":                {claim: "ädmin\u3000", wantReason: invalid},
		"a list's element with a comma, which would be two": {claim: []any{"a,admin"}, wantReason: invalid},
		"a list's element with a space before":              {claim: []any{"a", " admin"}, wantReason: invalid},
		"a list's element with a line feed":                 {claim: []any{"a", "b\n"}, wantReason: invalid},
		"a list's empty element":                            {claim: []any{"", "a"}, wantReason: invalid},
		"a null in a list":                                  {claim: []any{"a", nil}, wantReason: invalid},
		"a list in a list":                                  {claim: []any{[]any{"a"}}, wantReason: invalid},
		"an object":                                         {claim: map[string]any{"a": "b"}, wantReason: invalid},
		"an object in a list":                               {claim: []any{map[string]any{"a": "b"}}, wantReason: invalid},
		"a number that is not exact":                        {claim: 1e300, wantReason: invalid},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustCompile(t, v1alpha1.AccessPolicySpec{Identity: &v1alpha1.Identity{
				Headers: []v1alpha1.IdentityHeader{{Name: "X-Auth-Test", Claim: "c"}},
			}})
			headers, err := p.IdentityHeaders(claimsOf(object{"c": tc.claim}), &Request{})
			if Reason(err) != tc.wantReason {
				t.Fatalf("reason %q (%v), want %q", Reason(err), err, tc.wantReason)
			}
			if err == nil && headers[0].Value != tc.want {
				t.Errorf("value %q, want %q", headers[0].Value, tc.want)
			}
			if err != nil && headers != nil {
				t.Errorf("headers %v come beside the denial", headers)
			}
		})
	}
}

func TestIdentityHeaderOfAnExpression(t *testing.T) {
	for name, tc := range map[string]struct {
		cel        string
		claims     *token.Claims
		req        Request
		want       string
		wantReason string
	}{
		"a claim":                           {cel: "claims.sub", claims: claimsOf(object{"sub": "u1"}), want: "u1"},
		"a text put together":               {cel: "'user:' + claims.sub", claims: claimsOf(object{"sub": "u1"}), want: "user:u1"},
		"an absent claim":                   {cel: "'user:' + claims.sub", claims: claimsOf(object{}), want: ""},
		"an absent member":                  {cel: "claims.org.id", claims: claimsOf(object{"org": map[string]any{}}), want: ""},
		"an optional claim":                 {cel: "claims.?sub.orValue('none')", claims: claimsOf(object{}), want: "none"},
		"a claim that is no text":           {cel: "claims.n", claims: claimsOf(object{"n": int64(1)}), wantReason: "identity_error"},
		"an operation that fails":           {cel: "claims.l[3]", claims: claimsOf(object{"l": []any{"a"}}), wantReason: "identity_error"},
		"an expression that costs too much": {cel: "claims.l.map(a, claims.l.map(b, claims.l.map(c, 'x').join()).join()).join()", claims: claimsOf(object{"l": manyNumbers(200)}), wantReason: "identity_error"},
		"a line feed":                       {cel: "claims.sub", claims: claimsOf(object{"sub": "a\nb"}), wantReason: "identity_invalid"},
		"an unknown host":                   {cel: "request.host", claims: claimsOf(object{}), wantReason: "host_unknown"},
		"an ambiguous path":                 {cel: "request.path", claims: claimsOf(object{}), req: Request{HasPath: true, Path: "/", Ambiguous: true}, wantReason: "path_ambiguous"},
		"an unknown host for nobody":        {cel: "request.host", want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			headers, err := mustCompile(t, headerCEL(tc.cel)).IdentityHeaders(tc.claims, &tc.req)
			if Reason(err) != tc.wantReason {
				t.Fatalf("reason %q (%v), want %q", Reason(err), err, tc.wantReason)
			}
			if err == nil && headers[0].Value != tc.want {
				t.Errorf("value %q, want %q", headers[0].Value, tc.want)
			}
		})
	}
}

func TestIdentityHeadersAreBoundedTogether(t *testing.T) {
	p := mustCompile(t, v1alpha1.AccessPolicySpec{Identity: &v1alpha1.Identity{Headers: []v1alpha1.IdentityHeader{
		{Name: "X-A", Claim: "a"}, {Name: "X-B", Claim: "b"},
	}}})
	const overhead = 2 * (len("X-A") + len(": \r\n"))
	half := strings.Repeat("a", (MaxIdentityBytes-overhead)/2)
	if _, err := p.IdentityHeaders(claimsOf(object{"a": half, "b": half}), &Request{}); err != nil {
		t.Errorf("just within: %v", err)
	}
	headers, err := p.IdentityHeaders(claimsOf(object{"a": half, "b": half + "a"}), &Request{})
	if Reason(err) != "identity_too_large" || headers != nil {
		t.Errorf("one byte over: %v, %v", headers, err)
	}
}

func TestAPolicyWithoutIdentitySendsNoHeaders(t *testing.T) {
	headers, err := mustCompile(t, v1alpha1.AccessPolicySpec{}).IdentityHeaders(claimsOf(object{"sub": "u1"}), &Request{})
	if err != nil || len(headers) != 0 {
		t.Errorf("headers %v, %v", headers, err)
	}
}
