package grpcauth

import (
	"context"
	"errors"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/keywright/keywright/webhook/authz"
)

var errNoRequest = errors.New("what came says nothing about a request, or cannot be read")

// Server answers Check.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	Gate *authz.Gate
	// Admit is asked before anything is decided. When it refuses, its denial
	// is the answer; otherwise Release is called once there is one.
	Admit   func(context.Context) (refused *authz.Decision)
	Release func()
	// Fault is told of a fault of this program, and gives the denial.
	Fault func(fault any) authz.Decision
	// Clock measures how long answers take.
	Clock func() time.Time
	// Took is told how long each answer took.
	Took func(time.Duration)
	// Log is told of denials, and with LogAllowed of all decisions.
	Log        func(req authz.Request, d authz.Decision)
	LogAllowed bool
}

// Check decides about a request. It never gives an error, and its answer
// always has a status.
func (s *Server) Check(ctx context.Context, check *authv3.CheckRequest) (response *authv3.CheckResponse, _ error) {
	defer func() {
		if fault := recover(); fault != nil {
			d := s.Fault(fault)
			response = denied(&d)
		}
	}()
	began := s.Clock()
	if refused := s.Admit(ctx); refused != nil {
		s.Log(authz.Request{}, *refused)
		return denied(refused), nil
	}
	defer s.Release()
	if check.GetAttributes() == nil {
		d := s.Gate.Refuse(authz.ReasonUnreadableRequest, errNoRequest)
		s.Log(authz.Request{}, d)
		return denied(&d), nil
	}
	req := Request(check)
	d := s.Gate.Check(ctx, req)
	response = Respond(check, &d)
	s.Took(s.Clock().Sub(began))
	if !d.Allowed || s.LogAllowed {
		s.Log(req, d)
	}
	return response, nil
}
