package remoting

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"testing"
)

func TestFrameRoundTrip(t *testing.T) {
	t.Parallel()
	for _, binary := range []bool{false, true} {
		want := &Command{Code: EndTransaction, Opaque: 7, Flag: flagResponse, Remark: "why\n", Ext: map[string]string{"a": "ä\x01", "empty": ""}, Body: []byte{0, 1}, Binary: binary}
		b, err := want.Append([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		r := bytes.NewReader(b[len("before"):])
		got, err := Read(r)
		if err != nil {
			t.Fatal(err)
		}
		want.Language, want.Version = "GO", Version
		if binary { // Java would decode an empty value as null and take it into its signature as "null"
			delete(want.Ext, "empty")
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if _, err := Read(r); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		if answer := got.Answer(Success, ""); answer.Binary != binary {
			t.Errorf("binary %t: the response is %t", binary, answer.Binary)
		}
	}
}

// A header that the binary encoding can't have is sent as JSON.
func TestHeaderThatDoesNotFitBinary(t *testing.T) {
	t.Parallel()
	b, err := (&Command{Code: 1 << 20, Binary: true}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Read(bytes.NewReader(b)); err != nil || got.Code != 1<<20 || got.Binary {
		t.Errorf("got %+v, %v", got, err)
	}
}

// binaryFrame is a frame with a ROCKETMQ header, without the leading length.
func binaryFrame(code int16, remark string, ext map[string]string, body string) []byte {
	be := binary.BigEndian
	h := be.AppendUint16(nil, uint16(code))
	h = append(h, 9) // GO
	h = be.AppendUint16(h, 479)
	h = be.AppendUint32(h, 42)
	h = be.AppendUint32(h, flagResponse)
	h = be.AppendUint32(h, uint32(len(remark)))
	h = append(h, remark...)
	var e []byte
	for k, v := range ext {
		e = append(be.AppendUint16(e, uint16(len(k))), k...)
		e = append(be.AppendUint32(e, uint32(len(v))), v...)
	}
	h = append(be.AppendUint32(h, uint32(len(e))), e...)
	b := be.AppendUint32(nil, binaryHeader<<24|uint32(len(h)))
	return append(append(b, h...), body...)
}

func TestBinaryHeader(t *testing.T) {
	t.Parallel()
	got, err := Decode(binaryFrame(17, "no topic", map[string]string{"k": "v", "empty": ""}, "body"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Command{Code: TopicNotExist, Language: "GO", Version: 479, Opaque: 42, Flag: flagResponse, Remark: "no topic",
		Ext: map[string]string{"k": "v", "empty": ""}, Body: []byte("body"), Binary: true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"negative length":    {0xff, 0xff, 0xff, 0xff},
		"length too small":   {0, 0, 0, 3, 1, 2, 3},
		"header too long":    {0, 0, 0, 4, 0, 0, 0, 9},
		"no JSON":            {0, 0, 0, 5, 0, 0, 0, 1, '{'},
		"unknown encoding":   {0, 0, 0, 4, 7, 0, 0, 0},
		"short binary":       {0, 0, 0, 5, 1, 0, 0, 1, 0},
		"extFields a number": append([]byte{0, 0, 0, 23, 0, 0, 0, 19}, `{"extFields":{"a":1}}`[:19]...),
	} {
		if _, err := Read(bytes.NewReader(b)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := Read(bytes.NewReader([]byte{0, 1, 0, 0, 1})); err != io.ErrUnexpectedEOF {
		t.Errorf("cut short: got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	json, _ := (&Command{Code: 10, Ext: map[string]string{"a": "b"}, Body: []byte("x")}).Append(nil)
	f.Add(json[4:])
	f.Add(binaryFrame(39, "r", map[string]string{"k": "v"}, "b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v is not ErrMalformed", err)
			}
			return
		}
		again, err := c.Append(nil)
		if err != nil {
			return // a remark may grow past what a header can hold
		}
		if d, err := Read(bytes.NewReader(again)); err != nil || d.Code != c.Code || d.Opaque != c.Opaque || !bytes.Equal(d.Body, c.Body) {
			t.Errorf("%+v became %+v, %v", c, d, err)
		}
	})
}
