#include "common/tokenizer/char_classes.hpp"

#include <algorithm>
#include <map>

namespace tessera::tokenizer {

CharClasses::CharClasses() {
  std::vector<CharClass> flat(kCodePoints, CharClass::kOther);
  for (const ClassRun& run : class_runs()) {
    std::fill(flat.begin() + run.first, flat.begin() + run.last + 1, run.char_class);
  }
  std::map<std::vector<CharClass>, std::uint16_t> known;
  for (std::size_t block = 0; block < index_.size(); ++block) {
    const auto first = flat.begin() + static_cast<std::ptrdiff_t>(block << kBlockBits);
    std::vector<CharClass> content(first, first + (1 << kBlockBits));
    const auto next = static_cast<std::uint16_t>(known.size());
    const auto [entry, is_new] = known.try_emplace(content, next);
    if (is_new) {
      blocks_.insert(blocks_.end(), content.begin(), content.end());
    }
    index_[block] = entry->second;
  }
}

}  // namespace tessera::tokenizer
