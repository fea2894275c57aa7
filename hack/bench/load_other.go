//go:build !linux

package main

import "errors"

// load is for Linux alone.
type load struct {
	address string
	once    bool
	tokens  []string
}

var errLinux = errors.New("the load needs Linux")

func (*load) open(int, func() talk) error { return errLinux }

func (*load) run(int) error { return errLinux }

func (*load) close() {}

func measure(int, func() error) (sample, error) { return sample{}, errLinux }
