package policy

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keywright/keywright/webhook/token"
)

// Limits of a pattern of matches: its text in bytes, and the steps of the
// program that it becomes, each of which may be taken for each character of
// the text that is matched.
const (
	maxPattern      = 256
	maxPatternSteps = 1000
)

// maxNesting is how many loops of an expression, such as exists, may be in one
// another.
const maxNesting = 8

// maxShown bounds each part of a request that is shown to expressions, in
// bytes: what they cost is up to what they are shown.
const maxShown = 8 << 10

// aspect is a set of parts of a request.
type aspect uint8

const (
	aspectMethod aspect = 1 << iota
	aspectHost
	aspectPath
	aspectQuery
	aspectHeaders
)

// The variables of an expression.
const (
	variableClaims  = "claims"
	variableMethod  = "request.method"
	variableHost    = "request.host"
	variablePath    = "request.path"
	variableQuery   = "request.query"
	variableHeaders = "request.headers"
)

var variableAspects = map[string]aspect{
	variableMethod:  aspectMethod,
	variableHost:    aspectHost,
	variablePath:    aspectPath,
	variableQuery:   aspectQuery,
	variableHeaders: aspectHeaders,
}

// celEnv is made once: it is the same for every policy. Versions of the
// extensions are pinned, so that an update changes no policy's meaning.
var celEnv = sync.OnceValues(func() (*environment, error) {
	env, err := cel.NewEnv(
		cel.Variable(variableClaims, cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable(variableMethod, cel.StringType),
		cel.Variable(variableHost, cel.StringType),
		cel.Variable(variablePath, cel.StringType),
		cel.Variable(variableQuery, cel.MapType(cel.StringType, cel.ListType(cel.StringType))),
		cel.Variable(variableHeaders, cel.MapType(cel.StringType, cel.StringType)),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.OptionalTypes(cel.OptionalTypesVersion(2)),
		cel.ParserExpressionSizeLimit(4096),
		ext.Strings(ext.StringsVersion(5)),
		ext.Lists(ext.ListsVersion(3), ext.ListsMaxRangeSize(1000)),
		ext.Sets(ext.SetsVersion(1)),
		// A step looks for its variables in the loops around it, one by one.
		cel.ASTValidators(cel.ValidateComprehensionNestingLimit(maxNesting)),
	)
	if err != nil {
		return nil, err
	}
	bound, err := boundFunctions(env)
	return &environment{env, bound}, err
})

// environment is what expressions are compiled in.
type environment struct {
	*cel.Env
	bound map[string]*functions.Overload
}

// expression is a compiled CEL expression, safe for concurrent use.
type expression struct {
	program cel.Program
	looksAt aspect
	headers []header
	message string
}

// compileExpression compiles text to an expression that gives want, or a
// value whose type is known only at evaluation, such as claims.admin: what
// that turns out to be is checked then. It may not ask for the headers in
// withTokens, which are in lower case.
func compileExpression(path *field.Path, text string, want *cel.Type, withTokens map[string]bool) (expression, *field.Error) {
	fault := func(format string, args ...any) (expression, *field.Error) {
		return expression{}, field.Invalid(path, shorten(text), fmt.Sprintf(format, args...))
	}
	env, err := celEnv()
	if err != nil {
		return expression{}, field.InternalError(path, fmt.Errorf("preparing CEL: %w", err))
	}
	if text == "" {
		return expression{}, field.Required(path, "write a CEL expression")
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return fault("%s", describeIssues(issues))
	}
	// Before CEL compiles a pattern.
	if problem := checkPatterns(parsed); problem != "" {
		return fault("%s", problem)
	}
	ast, issues := env.Check(parsed)
	if issues.Err() != nil {
		return fault("%s", describeIssues(issues))
	}
	if got := ast.OutputType(); !got.IsExactType(want) && !got.IsExactType(cel.DynType) {
		return fault("it gives %s: write an expression that gives %s", got, want)
	}
	headers, problem := namedHeaders(ast, withTokens)
	if problem != "" {
		return fault("%s", problem)
	}
	program, err := env.Program(ast,
		cel.CustomDecoratorV2(metered(env.bound)),
		cel.EvalOptions(cel.OptOptimize),
	)
	if err != nil {
		return fault("%v", err)
	}
	e := expression{program: program, headers: headers}
	for _, ref := range ast.NativeRep().ReferenceMap() {
		// Where a macro's own variable hides request, CEL keeps the dot that
		// says the outer one is meant.
		e.looksAt |= variableAspects[strings.TrimPrefix(ref.Name, ".")]
	}
	return e, nil
}

// checkPatterns says what is wrong with a pattern of matches, "" when nothing
// is. All of them are known when the policy is compiled, so that none that
// comes with a request is compiled then.
func checkPatterns(parsed *cel.Ast) string {
	problem := ""
	celast.PostOrderVisit(parsed.NativeRep().Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		if e.Kind() != celast.CallKind || problem != "" {
			return
		}
		call := e.AsCall()
		// With a dot before it, it is the same function.
		if strings.TrimPrefix(call.FunctionName(), ".") != overloads.Matches || len(call.Args()) == 0 {
			return
		}
		pattern := call.Args()[len(call.Args())-1]
		if pattern.Kind() != celast.LiteralKind {
			problem = errPatternNotConstant.Error()
			return
		}
		if s, ok := pattern.AsLiteral().(types.String); ok {
			problem = checkPattern(string(s))
		}
	}))
	return problem
}

var errPatternNotConstant = errors.New("write the pattern of matches as one text: it must not come from claims or the request")

func checkPattern(pattern string) string {
	if len(pattern) > maxPattern {
		return fmt.Sprintf("a pattern of matches has %d bytes: the limit is %d", len(pattern), maxPattern)
	}
	steps, err := programSteps(pattern)
	if err != nil {
		return err.Error()
	}
	if steps > maxPatternSteps {
		return fmt.Sprintf("a pattern of matches becomes a program of at least %d steps: the limit is %d", steps, maxPatternSteps)
	}
	return ""
}

// describeIssues says on one line what the compiler found, with line:column.
func describeIssues(issues *cel.Issues) string {
	var all []string
	for _, one := range issues.Errors() {
		message := strings.ReplaceAll(one.Message, " (in container '')", "")
		message = strings.Join(strings.Fields(message), " ")
		switch {
		case strings.HasPrefix(message, "undeclared reference to 'request'"):
			message += ": use request.method, request.host, request.path, request.query or request.headers"
		case strings.HasPrefix(message, "undeclared reference to '"):
			message += ": variables are claims and request.method, .host, .path, .query and .headers"
		case message == "comprehension exceeds nesting limit":
			message = fmt.Sprintf("more than %d loops, such as exists, are in one another", maxNesting)
		}
		// CEL counts columns from 0, people and editors from 1.
		all = append(all, fmt.Sprintf("%s (at %d:%d)", message, one.Location.Line(), one.Location.Column()+1))
		if len(all) == 5 {
			break
		}
	}
	return strings.Join(all, "; ")
}

// shorten keeps a message readable that quotes an expression.
func shorten(text string) string {
	const most = 120
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// errMissingKey says that an expression asked for a claim, or for a member of
// one, or for a header, that is not there.
var errMissingKey = errors.New("no such key")

// eval evaluates. The request has what the expression looks at: see lacking.
// What it costs is counted in the request.
func (e *expression) eval(claims *token.Claims, req *Request) (any, error) {
	if err := e.tooLarge(req); err != nil {
		return nil, err
	}
	vars := variables{claims: claims, req: req}
	if e.looksAt&aspectQuery != 0 {
		query, err := url.ParseQuery(req.Query)
		if err != nil {
			return nil, errMalformedQuery // err quotes the query, which may hold a token
		}
		vars.query = query
	}
	if len(e.headers) > 0 {
		var ok bool
		if vars.headers, ok = headerValues(req, e.headers); !ok {
			return nil, errHeaderNotUTF8
		}
	}
	out, _, err := e.program.Eval(&vars)
	var stopped interpreter.EvalCancelledError
	switch {
	case errors.As(err, &stopped):
		return nil, errTooCostly
	case err != nil && strings.HasPrefix(err.Error(), "no such key"):
		return nil, e.missing(err.Error(), vars.headers)
	case err != nil:
		return nil, errEvaluation // err may quote a claim's value
	}
	switch v := out.(type) {
	case types.Bool:
		return bool(v), nil
	case types.String:
		return string(v), nil
	}
	return nil, errOtherType
}

// tooLarge says which part of the request has more than maxShown bytes.
func (e *expression) tooLarge(req *Request) error {
	for _, part := range [...]struct {
		aspect aspect
		name   string
		value  string
	}{
		{aspectMethod, "method", req.Method}, {aspectHost, "host", req.Host},
		{aspectPath, "path", req.Path}, {aspectQuery, "query", req.Query},
	} {
		if e.looksAt&part.aspect != 0 && len(part.value) > maxShown {
			return fmt.Errorf("the %s %w", part.name, errTooLarge)
		}
	}
	for i := range e.headers {
		for _, line := range req.Header[e.headers[i].field] {
			if len(line) > maxShown {
				return fmt.Errorf("the header %s %w", e.headers[i].name, errTooLarge)
			}
		}
	}
	return nil
}

// missing names the header that an expression asked for and did not find. What
// CEL says is not passed on: a claim may have given the key.
func (e *expression) missing(said string, there map[string]string) error {
	for i := range e.headers {
		name := e.headers[i].name
		if _, ok := there[name]; !ok && strings.TrimPrefix(said, "no such key: ") == name {
			return fmt.Errorf("%w: the header %s is absent", errMissingKey, name)
		}
	}
	return errMissingKey
}

// What can go wrong in an evaluation. CEL's own errors are not passed on:
// they may quote claims, query and headers, which do not belong in logs.
var (
	errMalformedQuery = errors.New("the query is malformed")
	errHeaderNotUTF8  = errors.New("a header is not UTF-8")
	errTooLarge       = fmt.Errorf("has more than the %d bytes that expressions are shown", maxShown)
	errTooCostly      = fmt.Errorf("the policy's expressions together cost more than the limit of %d", CostLimit)
	errEvaluation     = errors.New("an operation failed, such as one on a value of another type")
	errOtherType      = errors.New("it gave a value of another type")
)

// variables hands out a token's claims and a request's parts to CEL.
type variables struct {
	claims  *token.Claims
	req     *Request
	query   url.Values
	headers map[string]string
}

// shown are the claims of a token as expressions see them. They are made once a
// decision, and not kept with a token that is remembered.
type shown struct {
	claims *token.Claims
	whole  map[string]any
}

func (s *shown) of(claims *token.Claims) map[string]any {
	if s.claims != claims {
		s.claims, s.whole = claims, claims.Map()
	}
	return s.whole
}

// ResolveName implements cel.Activation.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case variableClaims:
		return v.req.shown.of(v.claims), true
	case variableMethod:
		return v.req.Method, true
	case variableHost:
		return v.req.Host, true
	case variablePath:
		return v.req.Path, true
	case variableQuery:
		return map[string][]string(v.query), true
	case variableHeaders:
		return v.headers, true
	case variableMeter:
		return &v.req.cost, true
	}
	return nil, false
}

// Parent implements cel.Activation.
func (*variables) Parent() cel.Activation { return nil }
