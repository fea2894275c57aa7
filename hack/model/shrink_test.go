package model

import (
	"slices"
	"testing"
)

// shrink leaves out of a list that fails what it can fail without: chunks
// first, then one at a time. It asks at most so many times.
func shrink[T any](list []T, tries int, fails func([]T) bool) []T {
	for size := len(list); size > 0; {
		shorter := false
		// From the end, because what comes after a failure is never needed.
		for end := len(list); end > 0; end -= size {
			if tries == 0 {
				return list
			}
			tries--
			rest := slices.Delete(slices.Clone(list), max(0, end-size), end)
			if fails(rest) {
				list, shorter = rest, true
			}
		}
		// What one pass left out can make more of the rest needless.
		if size > 1 || !shorter {
			size /= 2
		}
	}
	return list
}

func TestShrink(t *testing.T) {
	has := func(wanted ...int) func([]int) bool {
		return func(list []int) bool {
			return !slices.ContainsFunc(wanted, func(n int) bool { return !slices.Contains(list, n) })
		}
	}
	for name, test := range map[string]struct {
		tries int
		fails func([]int) bool
		want  []int
	}{
		"one step is to blame":              {500, has(17), []int{17}},
		"the first and the last are":        {500, has(1, 40), []int{1, 40}},
		"three are, in different chunks":    {500, has(3, 17, 22), []int{3, 17, 22}},
		"no step is":                        {500, has(), []int{}},
		"all are":                           {500, has(upTo(40)...), upTo(40)},
		"any five will do: the first stay":  {500, func(list []int) bool { return len(list) >= 5 }, upTo(5)},
		"8 hides 9 as long as it is there":  {500, func(list []int) bool { return has(9)(list) || has(5, 8)(list) }, []int{9}},
		"no tries: the list stays as it is": {0, has(17), upTo(40)},
		"few tries: what was reached":       {2, has(17), upTo(20)},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			got := shrink(upTo(40), test.tries, func(list []int) bool {
				asked++
				return test.fails(list)
			})
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, not %v", got, test.want)
			}
			if asked > test.tries {
				t.Errorf("asked %d times, not at most %d", asked, test.tries)
			}
			if !test.fails(got) {
				t.Errorf("%v does not fail", got)
			}
		})
	}
}
