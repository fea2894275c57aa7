package trace_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/webhook/trace"
)

func TestTrace(t *testing.T) {
	fault := errors.New("it is wrong")
	record := func(t *trace.Trace) error {
		t.Yes("rule", "read", "matches")
		t.No("rule", "write", "method")
		return t.Fault("signature", "", fault)
	}
	on := &trace.Trace{}
	if err := record(on); !errors.Is(err, fault) || !on.On() {
		t.Errorf("on %v, error %v", on.On(), err)
	}
	want := []trace.Step{
		{What: "rule", Name: "read", OK: true, Detail: "matches"},
		{What: "rule", Name: "write", Detail: "method"},
		{What: "signature", Detail: "it is wrong"},
	}
	if diff := cmp.Diff(want, on.Steps()); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	var off *trace.Trace
	if n := testing.AllocsPerRun(100, func() { _ = record(off) }); n != 0 || off.On() || off.Steps() != nil {
		t.Errorf("a trace that is off: %v allocations, steps %v", n, off.Steps())
	}
}
