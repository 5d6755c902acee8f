#include "clients/cli/io/text_decoder.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "clients/cli/io/file_kind.hpp"
#include "common/check.hpp"

namespace tessera::cli {

TextDecoder::TextDecoder(const std::string& encoding)
    : state_(iconv_open("UTF-8", encoding.c_str())) {
  // iconv takes suffixes that change its errors into guesses.
  if (encoding.find('/') != std::string::npos || state_ == reinterpret_cast<iconv_t>(-1)) {
    throw FatalError("--encoding " + shown(encoding) +
                     " is not known here; `iconv --list` names those that are");
  }
}

TextDecoder::~TextDecoder() { iconv_close(state_); }

bool TextDecoder::decode(std::string_view bytes, std::string& text) {
  waiting_.append(bytes);
  char* in = waiting_.data();
  std::size_t in_left = waiting_.size();
  bool good = true;
  while (in_left > 0) {
    const std::size_t before = text.size();
    text.resize(before + in_left * 2 + 16);
    char* out = text.data() + before;
    std::size_t out_left = text.size() - before;
    const std::size_t done = iconv(state_, &in, &in_left, &out, &out_left);
    text.resize(text.size() - out_left);
    if (done == static_cast<std::size_t>(-1) && errno != E2BIG) {
      good = errno == EINVAL;  // Cut, not wrong.
      break;
    }
  }
  offset_ += waiting_.size() - in_left;
  waiting_.erase(0, waiting_.size() - in_left);
  return good;
}

bool TextDecoder::finish(std::string& text) {
  char last[64];
  char* out = last;
  std::size_t left = sizeof(last);
  iconv(state_, nullptr, nullptr, &out, &left);
  text.append(last, sizeof(last) - left);
  return waiting_.empty();
}

bool is_utf8_name(const std::string& encoding) {
  std::string plain;
  for (const char c : encoding) {
    if (c != '-' && c != '_') {
      plain.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    }
  }
  return plain.empty() || plain == "utf8" || plain == "utf8sig";
}

}  // namespace tessera::cli
