package policy

import (
	"fmt"
	"math/bits"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

// CostLimit bounds what all expressions of one decision cost together. A step
// of one costs 1, and so do ten bytes of a text, or one value of a list, that a
// step reads or writes.
//
// It is counted here and not by CEL's own tracker, which counts an operation
// when it has been done, each expression by itself, a pattern by the length of
// its text, though (a?){1000} is short, and what format writes not at all.
const CostLimit = 100_000

// meter counts what the expressions of one decision cost.
type meter struct{ spent uint64 }

// left says how much may still be spent.
func (m *meter) left() uint64 { return CostLimit - min(m.spent, CostLimit) }

// pay ends the evaluation when there is not enough left, in the way that CEL
// ends one: Program.Eval makes an error of it.
func (m *meter) pay(cost uint64) {
	if cost > m.left() {
		m.spent = CostLimit + 1
		panic(interpreter.EvalCancelledError{Cause: interpreter.CostLimitExceeded, Message: "cost limit exceeded"})
	}
	m.spent += cost
}

// variableMeter is no name that an expression could have.
const variableMeter = "@meter"

// meterOf gives the meter of an evaluation, one of its own when policies are
// compiled: what CEL computes then are constants of the expression.
func meterOf(frame *interpreter.ExecutionFrame) *meter {
	if found, ok := frame.ResolveName(variableMeter); ok {
		return found.(*meter)
	}
	return &meter{}
}

// metered makes each step of a program pay before it is taken. bound are the
// functions by the names and overloads that CEL plans with.
func metered(bound map[string]*functions.Overload) interpreter.InterpretableDecoratorV2 {
	return func(node interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
		switch n := node.(type) {
		case interpreter.InterpretableConst:
			return node, nil
		case interpreter.InterpretableAttribute:
			return &attribute{n}, nil
		case interpreter.InterpretableConstructor:
			// A map is made each time: to go through a constant one is not
			// paid for.
			if isConstant(n.InitVals()) && n.Type() != types.MapType {
				return node, nil // CEL makes it a constant
			}
			return &step{n, uint64(len(n.InitVals()))}, nil
		case interpreter.InterpretableCall:
			return meteredCall(n, bound)
		}
		return &step{node, 0}, nil
	}
}

func isConstant(all []interpreter.InterpretableV2) bool {
	for _, one := range all {
		if _, ok := one.(interpreter.InterpretableConst); !ok {
			return false
		}
	}
	return true
}

// step is one that costs the same each time, and more for what it makes.
type step struct {
	interpreter.InterpretableV2
	more uint64
}

// Exec implements interpreter.InterpretableV2.
func (s *step) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	meterOf(frame).pay(1 + s.more)
	return s.InterpretableV2.Exec(frame)
}

// Eval implements interpreter.Interpretable.
func (s *step) Eval(vars interpreter.Activation) ref.Val { return s.Exec(interpreter.AsFrame(vars)) }

// attribute is a variable with the members that are asked of it. Each of those
// makes another one around it, which costs another step.
type attribute struct {
	interpreter.InterpretableAttribute
}

// Exec implements interpreter.InterpretableV2. A map's keys are all copied
// before the first step of a loop over it.
func (a *attribute) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	m := meterOf(frame)
	m.pay(1)
	value := a.InterpretableAttribute.Exec(frame)
	if _, within := a.InterpretableAttribute.(*attribute); within {
		return value // it is paid for
	}
	if all, ok := value.(traits.Mapper); ok {
		m.pay(size(all))
	}
	return value
}

// Eval implements interpreter.Interpretable.
func (a *attribute) Eval(vars interpreter.Activation) ref.Val {
	return a.Exec(interpreter.AsFrame(vars))
}

// call is a function whose cost depends on what it is given.
type call struct {
	interpreter.InterpretableCall
	args  []interpreter.InterpretableV2
	bound *functions.Overload
	price price
}

func meteredCall(n interpreter.InterpretableCall, bound map[string]*functions.Overload) (interpreter.InterpretableV2, error) {
	name := n.Function()
	if name == overloads.Matches {
		return newMatch(n)
	}
	p, known := prices[name]
	if known && p == nil {
		return &step{n, 0}, nil
	}
	if !known {
		p = whole
	}
	impl := bound[n.OverloadID()]
	if impl == nil {
		impl = bound[name]
	}
	if impl == nil || impl.NonStrict {
		return nil, fmt.Errorf("no one knows what %s costs", name)
	}
	switch name {
	case operators.Add:
		flat := *impl
		flat.Binary = addFlat(impl.Binary)
		impl = &flat
	case operators.In, operators.OldIn:
		return opaque{&call{n, n.Args(), impl, p}}, nil
	}
	return &call{n, n.Args(), impl, p}, nil
}

// opaque hides that a step is a call: CEL would put one in its place that does
// not pay.
type opaque struct{ interpreter.InterpretableV2 }

// addFlat makes one list of two. CEL makes a chain, and goes through all of it
// for each element that is asked for.
func addFlat(add functions.BinaryOp) functions.BinaryOp {
	return func(a, b ref.Val) ref.Val {
		left, isList := a.(traits.Lister)
		right, areLists := b.(traits.Lister)
		if !isList || !areLists || accumulates(a) {
			return add(a, b)
		}
		both := make([]ref.Val, 0, size(a)+size(b))
		for _, list := range [...]traits.Lister{left, right} {
			for it := list.Iterator(); it.HasNext() == types.True; {
				both = append(both, it.Next())
			}
		}
		return types.NewRefValList(types.DefaultTypeAdapter, both)
	}
}

// accumulates says whether a value is the list that map and filter add to, one
// by one.
func accumulates(v ref.Val) bool {
	_, ok := v.(traits.MutableLister)
	return ok
}

// Exec implements interpreter.InterpretableV2.
func (c *call) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	m := meterOf(frame)
	m.pay(1)
	args := make([]ref.Val, len(c.args))
	for i, arg := range c.args {
		if args[i] = arg.Exec(frame); types.IsUnknownOrError(args[i]) {
			return args[i]
		}
	}
	m.pay(c.price(args, m.left()))
	b := c.bound
	switch {
	case b.OperandTrait != 0 && !args[0].Type().HasTrait(b.OperandTrait):
		return types.NoSuchOverloadErr()
	case len(args) == 1 && b.Unary != nil:
		return b.Unary(args[0])
	case len(args) == 2 && b.Binary != nil:
		return b.Binary(args[0], args[1])
	case b.Function != nil:
		return b.Function(args...)
	}
	return types.NoSuchOverloadErr()
}

// Eval implements interpreter.Interpretable.
func (c *call) Eval(vars interpreter.Activation) ref.Val { return c.Exec(interpreter.AsFrame(vars)) }

// patternMatch is a call of matches, and opaque.
type patternMatch struct {
	id      int64
	text    interpreter.InterpretableV2
	pattern *regexp.Regexp
	steps   uint64
}

func newMatch(n interpreter.InterpretableCall) (interpreter.InterpretableV2, error) {
	args := n.Args()
	constant, ok := args[len(args)-1].(interpreter.InterpretableConst)
	if !ok { // checkPatterns says so before
		return nil, errPatternNotConstant
	}
	pattern, ok := constant.Value().(types.String)
	if !ok {
		return nil, errPatternNotConstant
	}
	steps, err := programSteps(string(pattern))
	if err != nil {
		return nil, err
	}
	compiled, err := regexp.Compile(string(pattern))
	if err != nil {
		return nil, err
	}
	return &patternMatch{n.ID(), args[0], compiled, steps}, nil
}

// programSteps says how many steps the program has that a pattern becomes, or
// at least has where these are too many.
func programSteps(pattern string) (uint64, error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, err
	}
	if least := leastSteps(parsed); least > maxPatternSteps {
		return least, nil // it is not made
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0, err
	}
	return uint64(len(program.Inst)), nil
}

// leastSteps is how many steps come of what takes characters, repetitions
// written out.
func leastSteps(re *syntax.Regexp) uint64 {
	var n uint64
	switch re.Op {
	case syntax.OpLiteral:
		n = uint64(len(re.Rune))
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		n = 1
	}
	for _, part := range re.Sub {
		n += leastSteps(part)
	}
	if re.Op == syntax.OpRepeat {
		n *= uint64(max(re.Min, re.Max)) //nolint:gosec // the parser lets through 1000 at most; Min is not negative
	}
	return n
}

// ID implements interpreter.InterpretableV2.
func (p *patternMatch) ID() int64 { return p.id }

// Exec implements interpreter.InterpretableV2. Each step of the program may be
// taken for each character; four of them take about as long as one of CEL's.
func (p *patternMatch) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	m := meterOf(frame)
	m.pay(1)
	value := p.text.Exec(frame)
	if types.IsUnknownOrError(value) {
		return value
	}
	text, ok := value.(types.String)
	if !ok {
		return types.NoSuchOverloadErr()
	}
	m.pay((uint64(len(text)) + 1) * p.steps / 4)
	return types.Bool(p.pattern.MatchString(string(text)))
}

// Eval implements interpreter.Interpretable.
func (p *patternMatch) Eval(vars interpreter.Activation) ref.Val {
	return p.Exec(interpreter.AsFrame(vars))
}

// price says what a call costs beyond a step. It looks at no more than it
// takes to know that this is over most.
type price func(args []ref.Val, most uint64) uint64

// prices of CEL's functions; nil for those that cost a step whatever they are
// given. One that is not here costs what it is given as a whole.
var prices = map[string]price{
	operators.LogicalAnd: nil, operators.LogicalOr: nil, operators.LogicalNot: nil, operators.Conditional: nil,
	operators.NotStrictlyFalse: nil, "__not_strictly_false__": nil,
	operators.Negate: nil, operators.Subtract: nil, operators.Multiply: nil, operators.Divide: nil, operators.Modulo: nil,
	operators.Index: nil, operators.OptIndex: nil, operators.OptSelect: nil,
	"dyn": nil, "type": nil, "first": nil, "last": nil,
	"hasValue": nil, "value": nil, "or": nil, "orValue": nil, "optional.of": nil, "optional.none": nil, "optional.ofNonZeroValue": nil,

	operators.Equals: lesser, operators.NotEquals: lesser,
	operators.Less: lesser, operators.LessEquals: lesser, operators.Greater: lesser, operators.GreaterEquals: lesser,
	operators.In: membership, operators.OldIn: membership, "in": membership,
	operators.Add: sum,

	"bool": texts, "bytes": texts, "double": texts, "duration": texts, "int": texts, "string": texts, "timestamp": texts, "uint": texts,
	"size": texts, "charAt": characters, "lowerAscii": characters, "upperAscii": characters, "trim": texts, "substring": characters,
	"startsWith": lesser, "endsWith": lesser, "contains": texts, "indexOf": search, "lastIndexOf": search,
	"replace": replacement, "split": pieces, "strings.quote": characters, "format": formatted, "join": joined,
	"reverse": members, "slice": members, "lists.range": rangeOf, "optional.unwrap": members, "unwrapOpt": members,
	"flatten": whole, "distinct": allPairs, "sort": sorting, "@sortByAssociatedKeys": sorting,
	"sets.contains": product, "sets.intersects": product, "sets.equivalent": product,
	overloads.Matches: nil, // see patternMatch

	overloads.TimeGetDate: zoned, overloads.TimeGetDayOfMonth: zoned, overloads.TimeGetDayOfWeek: zoned, overloads.TimeGetDayOfYear: zoned,
	overloads.TimeGetFullYear: zoned, overloads.TimeGetHours: zoned, overloads.TimeGetMilliseconds: zoned, overloads.TimeGetMinutes: zoned,
	overloads.TimeGetMonth: zoned, overloads.TimeGetSeconds: zoned,
}

// textCost is what it takes to read or write so many bytes.
func textCost(n int) uint64 { return uint64(n) / 10 } //nolint:gosec // lengths are not negative

// length of a text in bytes; 0 for other values.
func length(v ref.Val) int {
	switch v := v.(type) {
	case types.String:
		return len(v)
	case types.Bytes:
		return len(v)
	}
	return 0
}

// size of a list or a map; 0 for other values.
func size(v ref.Val) uint64 {
	switch v := v.(type) {
	case traits.Lister:
		return nonNegative(v.Size())
	case traits.Mapper:
		return nonNegative(v.Size())
	}
	return 0
}

func nonNegative(v ref.Val) uint64 {
	if n, ok := v.(types.Int); ok && n > 0 {
		return uint64(n)
	}
	return 0
}

// weigh counts the values in v, itself among them, and what its texts cost to
// read. A value that is there in several places counts as often: this may be
// far more than was made. It stops when it is over most.
func weigh(v ref.Val, most uint64) uint64 {
	n := 1 + textCost(length(v))
	switch v := v.(type) {
	case traits.Mapper:
		for it := v.Iterator(); n <= most && it.HasNext() == types.True; {
			key := it.Next()
			n += weigh(key, most-n)
			if n <= most {
				n += weigh(v.Get(key), most-n)
			}
		}
	case traits.Lister:
		for it := v.Iterator(); n <= most && it.HasNext() == types.True; {
			n += weigh(it.Next(), most-n)
		}
	case *types.Optional:
		if v.HasValue() && n <= most {
			n += weigh(v.GetValue(), most-n)
		}
	}
	return n
}

// texts are read, each once.
func texts(args []ref.Val, _ uint64) uint64 {
	n := 0
	for _, arg := range args {
		n += length(arg)
	}
	return textCost(n)
}

// sum of two texts or two lists.
func sum(args []ref.Val, most uint64) uint64 {
	n := texts(args, most) + size(args[1])
	if !accumulates(args[0]) {
		n += size(args[0])
	}
	return n
}

// lesser is for two values that are compared as far as the smaller one goes.
// The larger one is not weighed any further either: nobody pays for that.
func lesser(args []ref.Val, most uint64) uint64 {
	for bound := uint64(16); ; bound *= 2 {
		if n := min(weigh(args[0], bound), weigh(args[1], bound)); n <= bound || bound > most {
			return n - 1
		}
	}
}

// whole is for all that is given.
func whole(args []ref.Val, most uint64) uint64 {
	n := uint64(0)
	for _, arg := range args {
		if n <= most {
			n += weigh(arg, most-n)
		}
	}
	return n
}

// members of a list, or the characters of a text.
func members(args []ref.Val, most uint64) uint64 { return size(args[0]) + characters(args[:1], most) }

// membership: a list's elements are compared with the first argument, a map
// finds it.
func membership(args []ref.Val, most uint64) uint64 {
	n := weigh(args[0], most)
	if list, ok := args[1].(traits.Lister); ok {
		n *= max(nonNegative(list.Size()), 1)
	}
	return n
}

// product: each element of one list is compared with each of the other.
func product(args []ref.Val, most uint64) uint64 {
	return 2 * max(size(args[0]), 1) * weigh(args[1], most)
}

// allPairs of a list's elements are compared.
func allPairs(args []ref.Val, most uint64) uint64 { return size(args[0]) * weigh(args[0], most) }

// sorting compares each element of the last list about as often as its size
// has digits.
func sorting(args []ref.Val, most uint64) uint64 {
	keys := args[len(args)-1]
	return size(keys) + weigh(keys, most)*uint64(bits.Len64(size(keys))) //nolint:gosec // at most 64
}

// rangeOf so many numbers.
func rangeOf(args []ref.Val, _ uint64) uint64 { return nonNegative(args[0]) }

// search compares the text that is sought at each place of the other.
func search(args []ref.Val, most uint64) uint64 {
	return characters(args, most) + uint64(length(args[0]))*uint64(length(args[1]))/10 //nolint:gosec // lengths are not negative
}

// found says how often a text has another; an empty one is between all
// characters.
func found(args []ref.Val) int {
	text, _ := args[0].(types.String)
	one, _ := args[1].(types.String)
	if one == "" {
		return utf8.RuneCountInString(string(text)) + 1
	}
	return strings.Count(string(text), string(one))
}

// replacement writes the third text as often as the second is found.
func replacement(args []ref.Val, most uint64) uint64 {
	return texts(args, most) + textCost(found(args)*length(args[2]))
}

// pieces of a text.
func pieces(args []ref.Val, most uint64) uint64 {
	if len(args) < 2 {
		return texts(args, most)
	}
	return texts(args, most) + uint64(found(args)) //nolint:gosec // counts are not negative
}

// characters of texts are taken and written one by one.
func characters(args []ref.Val, most uint64) uint64 { return 4 * texts(args, most) }

// joined is a list of texts with another text between them.
func joined(args []ref.Val, most uint64) uint64 {
	n := weigh(args[0], most)
	if len(args) > 1 {
		n += textCost(int(min(size(args[0]), CostLimit)) * length(args[1])) //nolint:gosec // at most CostLimit
	}
	return n
}

// formatted is a text with values in it, up to a hundred digits of each. Maps
// are sorted on the way.
func formatted(args []ref.Val, most uint64) uint64 {
	text, _ := args[0].(types.String)
	n := texts(args[:1], most) + 32*uint64(strings.Count(string(text), "%")) //nolint:gosec // counts are not negative
	return n + 4*whole(args[1:], most)
}

// zoned: a time zone is read from a file, and one that there is not is looked
// for in several.
func zoned(args []ref.Val, _ uint64) uint64 {
	if len(args) > 1 {
		return 2000
	}
	return 0
}

// boundFunctions gives an environment's functions by the names and overloads
// that CEL plans with.
func boundFunctions(env *cel.Env) (map[string]*functions.Overload, error) {
	bound := map[string]*functions.Overload{}
	for _, f := range env.Functions() {
		all, err := f.Bindings()
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			bound[one.Operator] = one
		}
	}
	// CEL's own are never called: it plans these two apart.
	bound[overloads.Equals] = &functions.Overload{Binary: types.Equal}
	bound[overloads.NotEquals] = &functions.Overload{Binary: func(a, b ref.Val) ref.Val {
		return types.Bool(types.Equal(a, b) != types.True)
	}}
	return bound, nil
}
