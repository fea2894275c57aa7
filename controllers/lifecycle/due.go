package lifecycle

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
	_ "time/tzdata" // time zones must not depend on the machine

	"github.com/robfig/cron/v3"

	"github.com/keywright/keywright/api/v1alpha1"
)

// DefaultInterval is the interval of a rotation that has neither interval nor
// schedule.
const DefaultInterval = 720 * time.Hour

// ErrBadSchedule says that a rotation's schedule or time zone is not
// understood. The message begins with the field.
var ErrBadSchedule = errors.New("not understood")

// maxSlots bounds the search for the next slot of a schedule whose slots all
// fall before it (a doubled hour has at most 60).
const maxSlots = 128

// due says when the active key's time is over: at plus one interval, or the
// first slot of the schedule after it. ok is false when nothing but a trigger
// starts a rotation.
func due(rotation v1alpha1.Rotation, uid string, at time.Time) (t time.Time, ok bool, err error) {
	if rotation.Policy == v1alpha1.RotationManual {
		return time.Time{}, false, nil
	}
	if rotation.Schedule == "" {
		interval := DefaultInterval
		if rotation.Interval != nil {
			interval = rotation.Interval.Duration
		}
		return at.Add(interval + jitter(uid, min(interval/10, time.Hour))), true, nil
	}
	slot, err := nextSlot(rotation.Schedule, rotation.TimeZone, at)
	if err != nil {
		return time.Time{}, false, err
	}
	return slot.Add(jitter(uid, time.Minute)), true, nil
}

// jitter is a span below limit that is always the same for one SigningKey.
func jitter(uid string, limit time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(uid))
	return time.Duration(float64(limit) * (float64(h.Sum64()>>11) / (1 << 53)))
}

// nextSlot is the first slot of a five-field cron schedule after a time. A
// schedule that has none (30 February) is ErrBadSchedule.
//
// The search runs on wall-clock time without a zone and its result is placed
// in the zone afterwards. So a slot that daylight saving skips comes right
// after the gap, and one that it doubles comes once, the first time.
func nextSlot(schedule, zone string, after time.Time) (time.Time, error) {
	if strings.HasPrefix(schedule, "@") || strings.Contains(schedule, "TZ=") {
		return time.Time{}, fmt.Errorf("spec.rotation.schedule: %w: write five fields: minute, hour, day of month, month, day of week", ErrBadSchedule)
	}
	spec, err := cron.ParseStandard(schedule)
	if err != nil {
		return time.Time{}, fmt.Errorf("spec.rotation.schedule: %w: %w", ErrBadSchedule, err)
	}
	if zone == "" {
		zone = "UTC"
	}
	if strings.EqualFold(zone, "local") {
		return time.Time{}, fmt.Errorf("spec.rotation.timeZone: %w: Local means another thing on each machine", ErrBadSchedule)
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return time.Time{}, fmt.Errorf("spec.rotation.timeZone: %w: no time zone has the name %q", ErrBadSchedule, zone)
	}
	wall := wallClock(after.In(loc))
	for range maxSlots {
		wall = spec.Next(wall)
		if wall.IsZero() {
			break
		}
		if t := place(wall, loc); t.After(after) {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("spec.rotation.schedule: %w: no time in the next five years fits it", ErrBadSchedule)
}

// wallClock is what a clock on the wall shows at t, as a time in UTC.
func wallClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// place is the first instant at which a clock on the wall of loc shows wall
// or, where daylight saving skips that, the first one after the gap.
func place(wall time.Time, loc *time.Location) time.Time {
	// The instant lies within a day of the same reading in UTC, and clocks
	// only ever jump there by an offset change: the offsets on both sides
	// are the candidates.
	_, before := wall.Add(-26 * time.Hour).In(loc).Zone()
	_, after := wall.Add(26 * time.Hour).In(loc).Zone()
	early := wall.Add(-time.Duration(max(before, after)) * time.Second)
	late := wall.Add(-time.Duration(min(before, after)) * time.Second)
	if wallClock(early.In(loc)).Equal(wall) {
		return early
	}
	if wallClock(late.In(loc)).Equal(wall) {
		return late
	}
	// In a gap: the change itself is the first instant after it.
	_, end := early.In(loc).ZoneBounds()
	return end
}
