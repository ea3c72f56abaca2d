package remoting_test

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// compressed returns body by each method, by the system flag that names it.
func compressed(t testing.TB, body []byte) map[int32][]byte {
	t.Helper()
	all := map[int32][]byte{}
	for flag, open := range map[int32]func(io.Writer) io.WriteCloser{
		0x1:   func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		0x301: func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		0x101: func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) },
		0x201: func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	} {
		var b bytes.Buffer
		w := open(&b)
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		all[flag] = b.Bytes()
	}
	return all
}

func TestDecompress(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte(`{"order_id":"o-1"}`), 1000)
	for flag, b := range compressed(t, body) {
		if got, err := remoting.Decompress(flag, b, len(body)); err != nil || !bytes.Equal(got, body) {
			t.Errorf("flag %#x: %d bytes, %v", flag, len(got), err)
		}
		if _, err := remoting.Decompress(flag, b, len(body)-1); !errors.Is(err, remoting.ErrTooLong) {
			t.Errorf("flag %#x beyond the limit: %v", flag, err)
		}
		if _, err := remoting.Decompress(flag, b[:len(b)/2], len(body)); err == nil {
			t.Errorf("flag %#x: half of it is read", flag)
		}
	}
	if _, err := remoting.Decompress(0x701, body, 1<<20); !errors.Is(err, remoting.ErrMalformed) {
		t.Errorf("unknown method: %v", err)
	}
}

func TestCompress(t *testing.T) {
	t.Parallel()
	random := make([]byte, 1<<20)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for what, c := range map[string]struct {
		body    []byte
		smaller bool
	}{
		"text":            {bytes.Repeat([]byte("a large event "), 1000), true},
		"large text":      {bytes.Repeat([]byte("a large event "), 100_000), true},
		"random":          {random[:8192], false},
		"large random":    {random, false},
		"random at first": {append(random[:8192:8192], make([]byte, 100_000)...), true},
	} {
		compressed, smaller := remoting.Compress(c.body)
		if smaller != c.smaller {
			t.Errorf("%s: %d of %d bytes, smaller %t", what, len(compressed), len(c.body), smaller)
		}
		if !smaller {
			continue
		}
		if body, err := remoting.Decompress(0x1, compressed, len(c.body)); err != nil || !bytes.Equal(body, c.body) {
			t.Errorf("%s: %d bytes, %v", what, len(body), err)
		}
	}
}

// A small body that stands for a large one costs no more memory than the limit asks for.
func TestDecompressionBomb(t *testing.T) { // not parallel: it counts what the process allocates
	for flag, bomb := range compressed(t, make([]byte, 16<<20)) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := remoting.Decompress(flag, bomb, 1<<20); !errors.Is(err, remoting.ErrTooLong) {
			t.Errorf("flag %#x: %v", flag, err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
			t.Errorf("flag %#x: %d bytes of memory for a limit of 1 MiB", flag, used)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	for flag, b := range compressed(f, bytes.Repeat([]byte("abc"), 100)) {
		f.Add(flag, b)
	}
	f.Fuzz(func(t *testing.T, flag int32, body []byte) {
		const limit = 1 << 16
		if out, err := remoting.Decompress(flag, body, limit); err == nil && len(out) > limit {
			t.Errorf("%d bytes", len(out))
		}
	})
}
