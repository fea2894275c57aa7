package policy

import (
	"fmt"
	"net/textproto"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
)

// header is one that an expression asks for.
type header struct {
	name  string // in lower case, as expressions spell it
	field string // as Request.Header does
}

// headersWithTokens are never shown to expressions: an identity header would
// hand what is in them to the application and its logs, and an answer to the
// question whether a text is in a secret tells the secret in the end.
var headersWithTokens = []string{
	"authorization", "proxy-authorization", "cookie", "sec-websocket-protocol", "x-keywright-caller",
}

// namedHeaders lists the headers that a checked expression asks for, each once, or
// says what is wrong with how it asks: which headers count is known when the
// policy is compiled, so none is asked for by a name that comes with a request.
func namedHeaders(checked *cel.Ast, withTokens map[string]bool) (headers []header, problem string) {
	refers := func(e celast.Expr) bool {
		ref, ok := checked.NativeRep().ReferenceMap()[e.ID()]
		return ok && strings.TrimPrefix(ref.Name, ".") == variableHeaders
	}
	mentioned, named := 0, 0
	celast.PostOrderVisit(checked.NativeRep().Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		if refers(e) {
			mentioned++
		}
		if e.Kind() != celast.CallKind {
			return
		}
		call := e.AsCall()
		args := call.Args()
		if len(args) != 2 {
			return
		}
		var of, key celast.Expr
		switch call.FunctionName() {
		case operators.Index, operators.OptIndex:
			of, key = args[0], args[1]
		case operators.In:
			of, key = args[1], args[0]
		default:
			return
		}
		if !refers(of) || key.Kind() != celast.LiteralKind {
			return
		}
		text, ok := key.AsLiteral().(types.String)
		if !ok {
			return
		}
		named++
		h := header{name: string(text), field: textproto.CanonicalMIMEHeaderKey(string(text))}
		if problem == "" {
			problem = checkHeader(h.name, withTokens)
		}
		if !slices.Contains(headers, h) {
			headers = append(headers, h)
		}
	}))
	if problem == "" && mentioned != named {
		problem = "name each header by one text: request.headers['x-tenant'], request.headers[?'x-tenant'] or 'x-tenant' in request.headers"
	}
	return headers, problem
}

func checkHeader(name string, withTokens map[string]bool) string {
	switch lower := strings.ToLower(name); {
	case !isHeaderName(name):
		return fmt.Sprintf("%q is no header's name: %s", name, headerNameHint)
	case name != lower:
		return fmt.Sprintf("write the header's name in lower case: %q", lower)
	case name == "host":
		return "use request.host instead of the header host"
	case withTokens[name], slices.Contains(headersWithTokens, name):
		return fmt.Sprintf("the header %q may have a token or a secret: use claims", name)
	}
	return ""
}

// repeated gives the first of the headers that came more than once, or under
// another spelling: servers differ in which of the values they take. CGI and
// its heirs know X-Tenant, X_Tenant and X.Tenant by one name, and the proxy and
// the application may each read another of them.
func repeated(req *Request, headers []header) string {
	for i := range headers {
		lines := req.Header[headers[i].field]
		if len(lines) > 1 {
			return headers[i].name
		}
		if !strings.Contains(headers[i].field, "-") {
			continue // it has one spelling
		}
		for name := range req.Header {
			if name != headers[i].field && IsSpelling(name, headers[i].field) {
				return headers[i].name
			}
		}
	}
	return ""
}

// Field is the name of a header for the application.
type Field struct {
	// Name is its canonical form, and Lower that of HTTP/2.
	Name, Lower string
	// Spellings are names, in lower case, that servers may know as this one:
	// all of them, or those of one kind, when Partly, of a name with many
	// dashes.
	Spellings []string
	Partly    bool
}

// maxDashes is up to how many dashes a Field has all its spellings: 3^n - 1.
const maxDashes = 3

// NewField prepares a name.
func NewField(name string) *Field {
	f := &Field{Name: textproto.CanonicalMIMEHeaderKey(name), Lower: strings.ToLower(name)}
	dashes := strings.Count(name, "-")
	if dashes > maxDashes {
		f.Partly = true
		f.Spellings = []string{strings.ReplaceAll(f.Lower, "-", "_"), strings.ReplaceAll(f.Lower, "-", ".")}
		return f
	}
	all := 1
	for range dashes {
		all *= 3
	}
	for n := 1; n < all; n++ { // 0 is the name itself
		spelling, rest := []byte(f.Lower), n
		for i := range spelling {
			if spelling[i] == '-' {
				spelling[i] = "-_."[rest%3]
				rest /= 3
			}
		}
		f.Spellings = append(f.Spellings, string(spelling))
	}
	f.Spellings = slices.Clip(f.Spellings) // answers share it: appending copies it
	return f
}

// HasSpelling says whether servers may know another name as this one.
func (f *Field) HasSpelling(name string) bool {
	return IsSpelling(name, f.Lower) && !strings.EqualFold(name, f.Lower)
}

// IsSpelling says whether servers may know two names of headers as one: they
// are the same but for case and '_' or '.' in place of '-'.
func IsSpelling(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if foldHeaderByte(a[i]) != foldHeaderByte(b[i]) {
			return false
		}
	}
	return true
}

func foldHeaderByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '_' || c == '.':
		return '-'
	}
	return c
}

// headerValues gives the headers that are there, none of which is repeated; ok
// is false when one is not UTF-8.
func headerValues(req *Request, headers []header) (values map[string]string, ok bool) {
	values = make(map[string]string, len(headers))
	for i := range headers {
		lines := req.Header[headers[i].field]
		if len(lines) != 1 {
			continue
		}
		if !utf8.ValidString(lines[0]) {
			return nil, false
		}
		values[headers[i].name] = lines[0]
	}
	return values, true
}
