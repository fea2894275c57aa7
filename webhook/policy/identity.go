package policy

import (
	"errors"
	"unicode"
	"unicode/utf8"

	"github.com/keywright/keywright/webhook/token"
)

// MaxIdentityBytes bounds the identity headers of one answer, counted as they
// are sent: name, ": ", value, CR LF. Proxies read all headers of an answer
// into one buffer, of 4 KiB by default in nginx.
const MaxIdentityBytes = 3 << 10

// Header is one header for the application. Field is the policy's, and not to
// be changed.
type Header struct {
	Field *Field
	Value string
}

// identityHeader is a compiled v1alpha1.IdentityHeader: a name, and a claim's
// path or an expression.
type identityHeader struct {
	field *Field
	claim string
	expr  *expression
}

// IdentityHeaders gives every header that the policy names, in its order. The
// value is empty when it is not known: the claim is absent or null, the
// expression asks for a claim or a header that is absent, or nobody is
// authenticated (claims are nil; then expressions are not evaluated).
//
// Texts, numbers and truth values are sent as they are, lists of them joined
// by commas. An application must read what the token says, and nothing else;
// so these are denials (ErrIdentityInvalid):
//
//   - control characters, and what is not UTF-8
//   - spaces at either end, of a value or of a list's element: header fields
//     lose them, and " admin" would arrive as "admin"
//   - a list's element that is empty or has a comma: ["a,admin"] would arrive
//     as the two groups a and admin
//   - objects, lists in lists, null in lists, and numbers of 2^53 and more
//     that are not exact
//
// A claim that is one text may have commas ("Doe, John"): do not point an
// application that splits at commas to a claim whose one text users choose.
// An expression that joins a list itself has to see to its commas itself.
func (p *Policy) IdentityHeaders(claims *token.Claims, req *Request) ([]Header, error) {
	if len(p.identity) == 0 {
		return nil, nil
	}
	headers := make([]Header, len(p.identity))
	size := 0
	for i := range p.identity {
		h := &p.identity[i]
		value, err := h.value(claims, req, p.normalize)
		if err != nil {
			return nil, req.Trace.Fault("identity header", h.field.Name, err)
		}
		if value == "" {
			req.Trace.Yes("identity header", h.field.Name, "is sent empty")
		} else {
			req.Trace.Yes("identity header", h.field.Name, "is sent")
		}
		headers[i] = Header{Field: h.field, Value: value}
		size += len(h.field.Name) + len(": ") + len(value) + len("\r\n")
	}
	if size > MaxIdentityBytes {
		return nil, req.Trace.Fault("identity", "", ErrIdentityTooLarge)
	}
	return headers, nil
}

func (h *identityHeader) value(claims *token.Claims, req *Request, normalize bool) (string, error) {
	if claims == nil {
		return "", nil
	}
	if h.expr == nil {
		value, _ := claims.Lookup(h.claim)
		text, ok := headerText(value)
		if !ok {
			return "", h.denial(ErrIdentityInvalid, nil)
		}
		return text, nil
	}
	if class := lacking(req, h.expr.looksAt, normalize); class != nil {
		return "", h.denial(class, nil)
	}
	if name := repeated(req, h.expr.headers); name != "" {
		return "", &detail{class: ErrHeaderRepeated, about: "header", name: h.field.Name, what: name}
	}
	value, err := h.expr.eval(claims, req)
	if errors.Is(err, errMissingKey) {
		return "", nil
	}
	if err != nil {
		return "", h.denial(ErrIdentityExpression, err)
	}
	text, ok := value.(string)
	switch {
	case !ok:
		return "", h.denial(ErrIdentityExpression, errOtherType)
	case !isHeaderText(text):
		return "", h.denial(ErrIdentityInvalid, nil)
	}
	return text, nil
}

func (h *identityHeader) denial(class *Denial, cause error) error {
	return &detail{class: class, about: "header", name: h.field.Name, cause: cause}
}

// headerText writes a claim's value for a header; "" for null.
func headerText(value token.Value) (_ string, ok bool) {
	switch value.Kind() {
	case token.Null:
		return "", true
	case token.Text:
		return value.Text(), isHeaderText(value.Text())
	case token.Array:
		var joined []byte
		for one := range value.Elements() {
			if len(joined) > 0 { // no element is empty
				joined = append(joined, ',')
			}
			start := len(joined)
			if joined, ok = appendText(joined, one); !ok || !isListElement(joined[start:]) {
				return "", false
			}
		}
		return string(joined), true
	}
	text, ok := appendText(nil, value)
	return string(text), ok
}

func isListElement(b []byte) bool {
	for _, c := range b {
		if c == ',' {
			return false
		}
	}
	return len(b) > 0 && isHeaderText(string(b))
}

// isHeaderText says whether a header's value arrives as it is: UTF-8 without
// controls, and no space at either end.
func isHeaderText(s string) bool {
	ascii := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == 0x7f {
			return false
		} else if c >= utf8.RuneSelf {
			ascii = false
		}
	}
	if s == "" {
		return true
	}
	if ascii {
		return s[0] != ' ' && s[len(s)-1] != ' '
	}
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if isControl(r) {
			return false
		}
	}
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	return !unicode.IsSpace(first) && !unicode.IsSpace(last)
}
