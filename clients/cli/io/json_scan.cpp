#include "clients/cli/io/json_scan.hpp"

#include <algorithm>

namespace tessera::cli {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

class Scanner {
 public:
  explicit Scanner(std::string_view line) : line_(line) {
    skip_space();
    at_ = std::min(at_ + 1, line_.size());  // The brace.
  }

  // False at the object's end.
  bool next(RawMember& member) {
    skip_space();
    if (at_ >= line_.size() || line_[at_] == '}') {
      return false;
    }
    member.key = take_string();
    skip_space();
    at_ = std::min(at_ + 1, line_.size());  // The colon.
    skip_space();
    member.value = take_value();
    skip_space();
    if (at_ < line_.size() && line_[at_] == ',') {
      ++at_;
    }
    return true;
  }

 private:
  void skip_space() { at_ = std::min(line_.find_first_not_of(kSpace, at_), line_.size()); }

  std::string_view take_string() {
    const std::size_t start = at_++;
    while (at_ < line_.size() && line_[at_] != '"') {
      at_ += line_[at_] == '\\' ? 2 : 1;
    }
    at_ = std::min(at_ + 1, line_.size());
    return line_.substr(start, at_ - start);
  }

  std::string_view take_value() {
    const std::size_t start = at_;
    std::size_t depth = 0;
    while (at_ < line_.size()) {
      const char c = line_[at_];
      if (c == '"') {
        take_string();
        continue;
      }
      if (depth == 0 && (c == ',' || c == '}')) {
        break;
      }
      depth += c == '{' || c == '[' ? 1 : 0;
      depth -= c == '}' || c == ']' ? 1 : 0;
      ++at_;
    }
    const std::string_view value = line_.substr(start, at_ - start);
    return value.substr(0, value.find_last_not_of(kSpace) + 1);
  }

  std::string_view line_;
  std::size_t at_ = 0;
};

}  // namespace

std::vector<RawMember> members_of(std::string_view line) {
  std::vector<RawMember> members;
  Scanner scanner(line);
  for (RawMember member; scanner.next(member);) {
    members.push_back(member);
  }
  return members;
}

std::string_view raw_member(std::string_view line, std::size_t place) {
  Scanner scanner(line);
  RawMember member;
  for (std::size_t i = 0; scanner.next(member); ++i) {
    if (i == place) {
      return member.value;
    }
  }
  return {};
}

}  // namespace tessera::cli
