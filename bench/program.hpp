#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/check.hpp"

namespace tessera::bench {

// What the measuring programs share: flags, and the loop that checks and prints every case.

// "--name value" pairs; "--compare" and other names in `switches` stand alone and have value "1".
// Throws FatalError on a name that is in neither list.
class Flags {
 public:
  Flags(int argc, char** argv, const std::vector<std::string_view>& names,
        const std::vector<std::string_view>& switches = {"--compare"}) {
    const auto holds = [](const auto& list, std::string_view name) {
      for (const std::string_view known : list) {
        if (known == name) return true;
      }
      return false;
    };
    for (int i = 1; i < argc; ++i) {
      const std::string name = argv[i];
      if (holds(switches, name)) {
        values_[name] = std::string(1, '1');
      } else if (!holds(names, name)) {
        throw FatalError("unknown flag " + name);
      } else if (i + 1 == argc) {
        throw FatalError("no value after " + name);
      } else {
        values_[name] = argv[++i];
      }
    }
  }
  bool has(const std::string& name) const { return values_.contains(name); }
  std::string text(const std::string& name, const std::string& fallback = "") const {
    const auto found = values_.find(name);
    return found == values_.end() ? fallback : found->second;
  }
  std::int64_t number(const std::string& name, std::int64_t fallback) const {
    return has(name) ? std::strtoll(text(name).c_str(), nullptr, 10) : fallback;
  }
  // "16384,24": numbers behind commas.
  std::vector<std::int64_t> numbers(const std::string& name,
                                    std::vector<std::int64_t> fallback) const {
    if (!has(name)) return fallback;
    std::vector<std::int64_t> list;
    const std::string all = text(name);
    for (const char* at = all.c_str(); *at != '\0'; at += *at == ',') {
      char* end = nullptr;
      list.push_back(std::strtoll(at, &end, 10));
      if (end == at) throw FatalError(name + " takes numbers such as 16384,24");
      at = end;
    }
    return list;
  }

 private:
  std::map<std::string, std::string> values_;
};

// Of those that are numbers; NaN where none is.
inline double median(std::vector<double> values) {
  std::erase_if(values, [](double value) { return std::isnan(value); });
  if (values.empty()) return NAN;
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// Measures every case, also behind one that is wrong; each prints its own line. False if any was
// wrong.
template <typename Cases, typename Measure>
bool measure_all(const Cases& cases, Measure measure) {
  bool right = true;
  for (const auto& one : cases) {
    right = measure(one) && right;
    std::fflush(stdout);
  }
  return right;
}

// The program: 0 when all was right, 1 when something was wrong, 2 and one line when it cannot run.
template <typename Run>
int run_program(const char* name, Run run) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    return run() ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const FatalError& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return 2;
  }
}

}  // namespace tessera::bench
