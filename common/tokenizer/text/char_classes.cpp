#include "common/tokenizer/text/char_classes.hpp"

#include <algorithm>
#include <vector>

namespace tessera::tokenizer {

const CharClasses& CharClasses::instance() {
  static const CharClasses classes;
  return classes;
}

CharClasses::CharClasses() {
  std::vector<std::uint8_t> flat(TwoStageTable::kCodePoints,
                                 static_cast<std::uint8_t>(CharClass::kOther));
  for (const ClassRun& run : class_runs()) {
    std::fill(flat.begin() + run.first, flat.begin() + run.last + 1,
              static_cast<std::uint8_t>(run.char_class));
  }
  table_ = TwoStageTable(flat);
}

}  // namespace tessera::tokenizer
