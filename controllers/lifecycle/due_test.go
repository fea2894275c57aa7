package lifecycle

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/keywright/keywright/api/v1alpha1"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	out, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNextSlot(t *testing.T) {
	tests := map[string]struct {
		schedule, zone, after, want string
	}{
		"a slot in UTC when no zone is given":                  {"0 3 * * *", "", "2026-03-01T00:00:00Z", "2026-03-01T03:00:00Z"},
		"a slot in the zone's winter":                          {"0 3 * * 1", "Europe/Berlin", "2026-01-01T00:00:00Z", "2026-01-05T02:00:00Z"},
		"a slot in the zone's summer":                          {"0 3 * * 1", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-06T01:00:00Z"},
		"the slot itself is not after the slot":                {"0 3 * * *", "", "2026-03-01T03:00:00Z", "2026-03-02T03:00:00Z"},
		"a nanosecond before the slot":                         {"0 3 * * *", "", "2026-03-01T02:59:59.999999999Z", "2026-03-01T03:00:00Z"},
		"a nanosecond after the slot":                          {"0 3 * * *", "", "2026-03-01T03:00:00.000000001Z", "2026-03-02T03:00:00Z"},
		"Berlin's gap fires right after it":                    {"30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"},
		"the day after Berlin's gap is as usual":               {"30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"},
		"a slot at the end of Berlin's gap fires at it":        {"0 3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"},
		"the first of Berlin's doubled hours":                  {"30 2 * * *", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T00:30:00Z"},
		"the second of Berlin's doubled hours fires nothing":   {"30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		"asked within the second of Berlin's doubled hours":    {"30 2 * * *", "Europe/Berlin", "2026-10-25T01:15:00Z", "2026-10-26T01:30:00Z"},
		"every minute goes on after the doubled hour":          {"* * * * *", "Europe/Berlin", "2026-10-25T00:59:00Z", "2026-10-25T02:00:00Z"},
		"every minute goes on over the gap":                    {"* * * * *", "Europe/Berlin", "2026-03-29T00:59:00Z", "2026-03-29T01:00:00Z"},
		"New York's gap fires right after it":                  {"30 2 * * *", "America/New_York", "2026-03-08T05:00:00Z", "2026-03-08T07:00:00Z"},
		"the first of New York's doubled hours":                {"30 1 * * *", "America/New_York", "2026-11-01T04:00:00Z", "2026-11-01T05:30:00Z"},
		"the second of New York's doubled hours fires nothing": {"30 1 * * *", "America/New_York", "2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"},
		"Lord Howe's gap of half an hour":                      {"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T14:00:00Z", "2026-10-03T15:30:00Z"},
		"after Lord Howe's gap of half an hour":                {"45 2 * * *", "Australia/Lord_Howe", "2026-10-03T14:00:00Z", "2026-10-03T15:45:00Z"},
		"the first of Lord Howe's doubled half hours":          {"45 1 * * *", "Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-04T14:45:00Z"},
		"Lord Howe's second half hour fires nothing":           {"45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"},
		"a gap at midnight (Beirut)":                           {"0 0 * * *", "Asia/Beirut", "2026-03-28T12:00:00Z", "2026-03-28T22:00:00Z"},
		"the day that Apia skipped":                            {"0 12 * * *", "Pacific/Apia", "2011-12-30T00:00:00Z", "2011-12-30T10:00:00Z"},
		"the day after the one that Apia skipped":              {"0 12 * * *", "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"},
		"the day that Kwajalein skipped":                       {"0 12 21 8 *", "Pacific/Kwajalein", "1993-08-20T00:00:00Z", "1993-08-21T12:00:00Z"},
		"a zone of a quarter of an hour (Nepal)":               {"0 3 * * *", "Asia/Kathmandu", "2026-03-01T00:00:00Z", "2026-03-01T21:15:00Z"},
		"the furthest zone ahead":                              {"0 0 * * *", "Pacific/Kiritimati", "2026-03-01T09:59:59Z", "2026-03-01T10:00:00Z"},
		"the furthest zone behind":                             {"0 0 * * *", "Etc/GMT+12", "2026-03-01T11:59:59Z", "2026-03-01T12:00:00Z"},
		"a leap day is waited for":                             {"0 0 29 2 *", "", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		"Sunday may be written as a name":                      {"0 3 * * SUN", "", "2026-03-02T00:00:00Z", "2026-03-08T03:00:00Z"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var want time.Time
			if tc.want != "" {
				want = at(t, tc.want)
			}
			got, err := nextSlot(tc.schedule, tc.zone, at(t, tc.after))
			if err != nil || !got.Equal(want) {
				t.Errorf("nextSlot(%q, %q, %s) = %s, %v, want %s", tc.schedule, tc.zone, tc.after, got, err, want)
			}
		})
	}
}

func TestNextSlotRefuses(t *testing.T) {
	tests := map[string]struct {
		schedule, zone, want string
	}{
		"four fields":                        {"0 3 * *", "", "spec.rotation.schedule: "},
		"six fields":                         {"0 0 3 * * *", "", "spec.rotation.schedule: "},
		"no field":                           {" ", "", "spec.rotation.schedule: "},
		"an hour that there is not":          {"0 24 * * *", "", "spec.rotation.schedule: "},
		"a step of nothing":                  {"*/0 * * * *", "", "spec.rotation.schedule: "},
		"a name of a schedule":               {"@daily", "", "spec.rotation.schedule: "},
		"an interval as a schedule":          {"@every 1h", "", "spec.rotation.schedule: "},
		"a zone in the schedule":             {"CRON_TZ=Europe/Berlin 0 3 * * *", "", "spec.rotation.schedule: "},
		"a zone in the schedule, short form": {"TZ=UTC", "", "spec.rotation.schedule: "},
		"a zone that there is not":           {"0 3 * * *", "Europe/Atlantis", "spec.rotation.timeZone: "},
		"a zone that leaves the database":    {"0 3 * * *", "../etc/passwd", "spec.rotation.timeZone: "},
		"the machine's own zone":             {"0 3 * * *", "Local", "spec.rotation.timeZone: "},
		"the machine's own zone in capitals": {"0 3 * * *", "LOCAL", "spec.rotation.timeZone: "},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := nextSlot(tc.schedule, tc.zone, at(t, "2026-03-01T00:00:00Z"))
			if !errors.Is(err, ErrBadSchedule) || !strings.HasPrefix(fmt.Sprint(err), tc.want) || !got.IsZero() {
				t.Errorf("nextSlot(%q, %q) = %s, %v, want ErrBadSchedule that begins with %q", tc.schedule, tc.zone, got, err, tc.want)
			}
		})
	}
}

// checkSlot holds what is true of every slot of every schedule: it lies after
// the time, a later time has no earlier slot, and a clock on the wall shows a
// slot of the schedule, except at the first instant after a gap.
func checkSlot(t *testing.T, schedule, zone string, after time.Time) {
	t.Helper()
	slot, err := nextSlot(schedule, zone, after)
	if err != nil || slot.IsZero() {
		return
	}
	if !slot.After(after) {
		t.Fatalf("%q in %q: slot %s is not after %s", schedule, zone, slot, after)
	}
	between := after.Add(slot.Sub(after) / 2)
	if again, err := nextSlot(schedule, zone, between); err != nil || !again.Equal(slot) {
		t.Errorf("%q in %q: after %s comes %s, but after the later %s comes %s, %v", schedule, zone, after, slot, between, again, err)
	}
	spec, err := cron.ParseStandard(schedule)
	if err != nil {
		t.Fatalf("%q was taken but cannot be read: %v", schedule, err)
	}
	if zone == "" {
		zone = "UTC"
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatalf("%q was taken but cannot be read: %v", zone, err)
	}
	wall := wallClock(slot.In(loc))
	fits := spec.Next(wall.Add(-time.Second)).Equal(wall)
	changed, _ := slot.In(loc).ZoneBounds()
	if !fits && !slot.Equal(changed) {
		t.Errorf("%q in %q: %s shows %s on the wall, which is no slot", schedule, zone, slot, wall)
	}
}

var (
	someSchedules = []string{"* * * * *", "30 2 * * *", "*/15 1-3 * * *", "0 0 * * *", "0 3 * * 1", "59 23 31 12 *", "0 0 29 2 *", "15 2 1,15 * *"}
	someZones     = []string{"", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Asia/Beirut", "Africa/Casablanca", "Asia/Kathmandu", "Pacific/Apia", "Pacific/Chatham", "Antarctica/Troll"}
)

func TestEverySlotFitsItsSchedule(t *testing.T) {
	for _, schedule := range someSchedules {
		for _, zone := range someZones {
			// An odd step, so that all hours of the day and both sides of each
			// change are met.
			for after := at(t, "2026-01-01T00:00:00Z"); after.Year() == 2026; after = after.Add(31*time.Hour + 11*time.Minute + 500*time.Millisecond) {
				checkSlot(t, schedule, zone, after)
			}
		}
	}
}

func FuzzSchedule(f *testing.F) {
	for i, schedule := range someSchedules {
		f.Add(schedule, someZones[i], int64(1774746000)) // Berlin's gap in 2026
	}
	f.Add("30 2 * * *", "Pacific/Apia", int64(1325239200))
	f.Add("@every 1h", "Local", int64(0))
	f.Add("TZ=UTC", "", int64(0))
	f.Fuzz(func(t *testing.T, schedule, zone string, unix int64) {
		// The times that rotation is about; zones made larger jumps before.
		const from, span = 1767225600, 50 * 366 * 24 * 3600 // 2026 and 50 years
		checkSlot(t, schedule, zone, time.Unix(from+(unix%span+span)%span, 0))
	})
}

func TestJitter(t *testing.T) {
	const limit = time.Hour
	low, high := limit, time.Duration(0)
	for i := range 10_000 {
		uid := fmt.Sprintf("c0ffee00-0000-4000-8000-%012d", i)
		got := jitter(uid, limit)
		if got < 0 || got >= limit {
			t.Fatalf("jitter(%s) = %s, want at least 0 and below %s", uid, got, limit)
		}
		if again := jitter(uid, limit); again != got {
			t.Fatalf("jitter(%s) = %s, then %s", uid, got, again)
		}
		low, high = min(low, got), max(high, got)
	}
	if low > limit/20 || high < limit-limit/20 {
		t.Errorf("10,000 SigningKeys have jitters from %s to %s only, want them spread over %s", low, high, limit)
	}
	if got := jitter("any", 0); got != 0 {
		t.Errorf("jitter below 0 = %s, want 0", got)
	}
}

func TestDue(t *testing.T) {
	const uid = "c0ffee00-0000-4000-8000-000000000001"
	activated := at(t, "2026-03-01T12:00:00Z")
	span := func(d time.Duration) *v1alpha1.Duration { return &v1alpha1.Duration{Duration: d} }
	tests := map[string]struct {
		rotation v1alpha1.Rotation
		want     time.Time
		never    bool
	}{
		"an interval, with at most a tenth of it more": {
			rotation: v1alpha1.Rotation{Interval: span(time.Hour)},
			want:     activated.Add(time.Hour + jitter(uid, 6*time.Minute)),
		},
		"a long interval, with at most an hour more": {
			rotation: v1alpha1.Rotation{Interval: span(1000 * time.Hour)},
			want:     activated.Add(1000*time.Hour + jitter(uid, time.Hour)),
		},
		"neither interval nor schedule": {
			want: activated.Add(720*time.Hour + jitter(uid, time.Hour)),
		},
		"a schedule, with at most a minute more": {
			rotation: v1alpha1.Rotation{Schedule: "0 3 * * *", TimeZone: "Europe/Berlin"},
			want:     at(t, "2026-03-02T02:00:00Z").Add(jitter(uid, time.Minute)),
		},
		"only on trigger": {
			rotation: v1alpha1.Rotation{Policy: v1alpha1.RotationManual},
			never:    true,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok, err := due(tc.rotation, uid, activated)
			if err != nil || ok == tc.never || !got.Equal(tc.want) {
				t.Errorf("due = %s, %v, %v, want %s, %v", got, ok, err, tc.want, !tc.never)
			}
		})
	}
	for _, schedule := range []string{"whenever", "0 0 30 2 *"} {
		if _, ok, err := due(v1alpha1.Rotation{Schedule: schedule}, uid, activated); ok || !errors.Is(err, ErrBadSchedule) {
			t.Errorf("due by %q = %v, %v, want ErrBadSchedule and no time", schedule, ok, err)
		}
	}
}

func TestCeil(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"a whole second stays":                   {"2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"},
		"a nanosecond more is the next second":   {"2026-03-01T12:00:00.000000001Z", "2026-03-01T12:00:01Z"},
		"a nanosecond less is the second itself": {"2026-03-01T11:59:59.999999999Z", "2026-03-01T12:00:00Z"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Ceil(at(t, tc.in)); !got.Equal(at(t, tc.want)) {
				t.Errorf("Ceil(%s) = %s, want %s", tc.in, got, tc.want)
			}
		})
	}
	if got := Ceil(time.Time{}); !got.IsZero() {
		t.Errorf("Ceil of no time = %s, want no time", got)
	}
}
