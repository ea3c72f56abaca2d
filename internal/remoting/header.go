package remoting

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// header is the JSON header of a frame. Nearly all headers have a simple form, which is encoded and decoded here without reflection: that
// took a third of an embedded broker's time for a send. Any other form is decoded by encoding/json, which therefore alone determines what is
// accepted.
type header struct {
	Code     Code              `json:"code"`
	Language string            `json:"language"`
	Version  int               `json:"version"`
	Opaque   int32             `json:"opaque"`
	Flag     int               `json:"flag"`
	Remark   string            `json:"remark,omitempty"`
	Ext      map[string]string `json:"extFields,omitempty"`
}

func (h *header) append(b []byte) []byte {
	b = append(b, `{"code":`...)
	b = strconv.AppendInt(b, int64(h.Code), 10)
	b = append(b, `,"language":`...)
	b = appendString(b, h.Language)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, int64(h.Version), 10)
	b = append(b, `,"opaque":`...)
	b = strconv.AppendInt(b, int64(h.Opaque), 10)
	b = append(b, `,"flag":`...)
	b = strconv.AppendInt(b, int64(h.Flag), 10)
	if h.Remark != "" {
		b = append(b, `,"remark":`...)
		b = appendString(b, h.Remark)
	}
	if len(h.Ext) > 0 {
		separator := `,"extFields":{`
		for name, value := range h.Ext {
			b = append(b, separator...)
			b = appendString(b, name)
			b = append(b, ':')
			b = appendString(b, value)
			separator = ","
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendString appends s as a JSON string. Invalid UTF-8 becomes the replacement character, as in encoding/json.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	plain := 0 // index of the first byte that isn't appended yet
	for i := 0; i < len(s); {
		switch ch := s[i]; {
		case ch == '"' || ch == '\\':
			b = append(append(b, s[plain:i]...), '\\', ch)
		case ch < ' ':
			b = append(append(b, s[plain:i]...), '\\', 'u', '0', '0', hex[ch>>4], hex[ch&15])
		case ch < utf8.RuneSelf:
			i++
			continue
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			b = append(append(b, s[plain:i]...), `\ufffd`...)
		}
		i++
		plain = i
	}
	return append(append(b, s[plain:]...), '"')
}

func decodeHeader(b []byte) (header, error) {
	p := headerParser{b: b}
	if h := p.header(); !p.failed && p.at == len(b) {
		return h, nil
	}
	var h header
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("%w header: %w", ErrMalformed, err)
	}
	return h, nil
}

// headerParser decodes headers of the simple form. For all others it sets failed: for unknown fields, values of another type, unusual numbers
// and escapes, invalid UTF-8, and malformed JSON.
type headerParser struct {
	b      []byte
	at     int
	failed bool
	buffer []byte
}

func (p *headerParser) header() header {
	var h header
	p.object(func(field []byte) {
		switch string(field) {
		case "code":
			h.Code = Code(p.number())
		case "language":
			h.Language = p.text()
		case "version":
			h.Version = int(p.number())
		case "opaque":
			h.Opaque = p.number()
		case "flag":
			h.Flag = int(p.number())
		case "remark":
			h.Remark = p.text()
		case "serializeTypeCurrentRPC": // sent by Java, not needed
			p.text()
		case "extFields":
			if h.Ext == nil {
				h.Ext = make(map[string]string, 16)
			}
			p.object(func(field []byte) {
				name, known := fieldNames[string(field)]
				if !known {
					name = string(field)
				}
				h.Ext[name] = p.text()
			})
		default:
			p.failed = true
		}
	})
	return h
}

// object decodes an object, and calls value to decode each field's value. The field's name is valid until the next string is decoded.
func (p *headerParser) object(value func(field []byte)) {
	p.token('{')
	if p.peek() == '}' {
		p.at++
		return
	}
	for !p.failed {
		field := p.string()
		p.token(':')
		if !p.failed {
			value(field)
		}
		if p.peek() != ',' {
			break
		}
		p.at++
	}
	p.token('}')
}

// peek skips white space and returns the next byte, or 0 at the end.
func (p *headerParser) peek() byte {
	for ; p.at < len(p.b); p.at++ {
		switch p.b[p.at] {
		case ' ', '\n', '\r', '\t':
		default:
			return p.b[p.at]
		}
	}
	return 0
}

// token skips white space and the byte ch.
func (p *headerParser) token(ch byte) {
	if p.failed || p.peek() != ch {
		p.failed = true
		return
	}
	p.at++
}

// number decodes an integer of 32 bits.
func (p *headerParser) number() int32 {
	first := p.peek()
	negative := first == '-'
	if negative {
		p.at++
	}
	var n int64
	start := p.at
	for ; p.at < len(p.b) && p.b[p.at] >= '0' && p.b[p.at] <= '9' && p.at-start < 10; p.at++ {
		n = n*10 + int64(p.b[p.at]-'0')
	}
	digits := p.at - start
	if digits == 0 || digits > 1 && p.b[start] == '0' || n > 1<<31-1 {
		p.failed = true
	}
	if p.at < len(p.b) {
		switch p.b[p.at] { // a fraction, an exponent, or too many digits
		case '.', 'e', 'E', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			p.failed = true
		}
	}
	if negative {
		n = -n
	}
	return int32(n)
}

// text decodes a string. It allocates none for the most frequent ones.
func (p *headerParser) text() string {
	b := p.string()
	switch string(b) {
	case "":
		return ""
	case "GO":
		return "GO"
	case "JAVA":
		return "JAVA"
	}
	return string(b)
}

// string decodes a string. The bytes are valid until the next call.
func (p *headerParser) string() []byte {
	p.token('"')
	if p.failed {
		return nil
	}
	start := p.at
	ascii, escaped := true, false
	for ; p.at < len(p.b) && p.b[p.at] != '"'; p.at++ {
		switch ch := p.b[p.at]; {
		case ch < ' ':
			p.failed = true
			return nil
		case ch == '\\':
			escaped = true
			p.at++ // the escaped byte may be a quote
		case ch >= utf8.RuneSelf:
			ascii = false
		}
	}
	if p.at >= len(p.b) {
		p.failed = true
		return nil
	}
	s := p.b[start:p.at]
	p.at++
	if !ascii && !utf8.Valid(s) {
		p.failed = true
		return nil
	}
	if escaped {
		return p.unescape(s)
	}
	return s
}

// unescape replaces the escapes in s.
func (p *headerParser) unescape(s []byte) []byte {
	b := p.buffer[:0]
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		i++ // string has checked that a byte follows
		switch s[i] {
		case '"', '\\', '/':
			b = append(b, s[i])
		case 'n':
			b = append(b, '\n')
		case 't':
			b = append(b, '\t')
		case 'u':
			if i+4 >= len(s) || s[i+1] != '0' || s[i+2] != '0' || s[i+3] < '0' || s[i+3] > '7' {
				p.failed = true // not ASCII, or incomplete
				return nil
			}
			high := s[i+3] - '0'
			low, ok := unhex(s[i+4])
			if !ok {
				p.failed = true
				return nil
			}
			b = append(b, high<<4|low)
			i += 4
		default:
			p.failed = true
			return nil
		}
	}
	p.buffer = b
	return b
}

func unhex(ch byte) (byte, bool) {
	switch {
	case ch >= '0' && ch <= '9':
		return ch - '0', true
	case ch >= 'a' && ch <= 'f':
		return ch - 'a' + 10, true
	case ch >= 'A' && ch <= 'F':
		return ch - 'A' + 10, true
	}
	return 0, false
}

// fieldNames are the usual names of fields, so that decoding a frame doesn't allocate them.
var fieldNames = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{
		"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m",
		"producerGroup", "topic", "defaultTopic", "defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp", "flag",
		"properties", "reconsumeTimes", "unitMode", "maxReconsumeTimes", "batch",
		"msgId", "queueOffset", "transactionId", "MSG_REGION", "TRACE_ON", "recallHandle",
		"tranStateTableOffset", "commitLogOffset", "commitOrRollback", "fromTransactionCheck", "offsetMsgId", "bname",
		"consumerGroup", "maxMsgNums", "commitOffset", "suspendTimeoutMillis", "subscription", "subVersion", "expressionType",
		"nextBeginOffset", "minOffset", "maxOffset", "suggestWhichBrokerId", "offset", "timestamp", "setZeroIfNotFound",
		"AccessKey", "Signature",
	} {
		m[name] = name
	}
	return m
}()
