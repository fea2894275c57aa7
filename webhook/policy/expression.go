package policy

import (
	"errors"
	"fmt"
	"net/url"
	"regexp/syntax"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keywright/keywright/webhook/token"
)

// CostLimit bounds one evaluation of an expression, in CEL's units of cost:
// about one for each step, one for each ten bytes of a text that is read.
//
// For a pattern CEL reckons with the length of its text, which says nothing
// of the work: (a?){1000} is short. So patterns have limits of their own.
const CostLimit = 100_000

// Limits of a pattern of matches: its text in bytes, and the steps of the
// program that it becomes, each of which may be taken for each character of
// the text that is matched.
const (
	maxPattern        = 256
	maxPatternProgram = 1000
)

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
var celEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
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
	)
})

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
		cel.CostLimit(CostLimit),
		cel.EvalOptions(cel.OptOptimize), // compiles constant patterns now, and so reports them now
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
		if e.Kind() != celast.CallKind {
			return
		}
		call := e.AsCall()
		// With a dot before it, it is the same function.
		if strings.TrimPrefix(call.FunctionName(), ".") != overloads.Matches || len(call.Args()) == 0 {
			return
		}
		pattern := call.Args()[len(call.Args())-1]
		if pattern.Kind() != celast.LiteralKind {
			problem = "write the pattern of matches as one text: it must not come from claims or the request"
			return
		}
		if s, ok := pattern.AsLiteral().(types.String); ok && problem == "" {
			problem = checkPattern(string(s))
		}
	}))
	return problem
}

// checkPattern does what cel.RegexProgramSizeLimit is for. That panics at a
// pattern with a repetition (cel-go v0.31.0, types.RegexProgramSize: it
// compiles what it has not simplified).
func checkPattern(pattern string) string {
	if len(pattern) > maxPattern {
		return fmt.Sprintf("a pattern of matches has %d bytes: the limit is %d", len(pattern), maxPattern)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return err.Error()
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return err.Error()
	}
	if steps := len(program.Inst); steps > maxPatternProgram {
		return fmt.Sprintf("a pattern of matches becomes a program of %d steps: the limit is %d", steps, maxPatternProgram)
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
// one, that is not there.
var errMissingKey = errors.New("no such key")

// eval evaluates. The request has what the expression looks at: see lacking.
func (e *expression) eval(claims token.Claims, req *Request) (any, error) {
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
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "no such key"):
		return nil, errMissingKey
	case err != nil && strings.Contains(err.Error(), "cost limit"):
		return nil, errTooCostly
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

// What can go wrong in an evaluation. CEL's own errors are not passed on:
// they may quote claims, query and headers, which do not belong in logs.
var (
	errMalformedQuery = errors.New("the query is malformed")
	errHeaderNotUTF8  = errors.New("a header is not UTF-8")
	errTooCostly      = fmt.Errorf("it costs more than the limit of %d", CostLimit)
	errEvaluation     = errors.New("an operation failed, such as one on a value of another type")
	errOtherType      = errors.New("it gave a value of another type")
)

// variables hands out a token's claims and a request's parts to CEL.
type variables struct {
	claims  token.Claims
	req     *Request
	query   url.Values
	headers map[string]string
}

// ResolveName implements cel.Activation.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case variableClaims:
		return map[string]any(v.claims), true
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
	}
	return nil, false
}

// Parent implements cel.Activation.
func (*variables) Parent() cel.Activation { return nil }
