#pragma once

#include <iconv.h>

#include <string>
#include <string_view>

namespace tessera::cli {

// Bytes of another encoding to UTF-8, block by block. One thread.
class TextDecoder {
 public:
  // Any name that iconv knows. Throws FatalError on another one.
  explicit TextDecoder(const std::string& encoding);
  ~TextDecoder();
  TextDecoder(const TextDecoder&) = delete;
  TextDecoder& operator=(const TextDecoder&) = delete;

  // Appends what `bytes` say to `text`; a character that they cut waits for the next call. False
  // when something is no character of the encoding; offset() is then its place in all bytes.
  bool decode(std::string_view bytes, std::string& text);
  // At the end of the input: false when it ends within a character.
  bool finish(std::string& text);

  std::size_t offset() const { return offset_; }  // Bytes decoded so far.

 private:
  iconv_t state_;
  std::string waiting_;
  std::size_t offset_ = 0;
};

// "" and "utf8" in every spelling need no decoder.
bool is_utf8_name(const std::string& encoding);

}  // namespace tessera::cli
