//! The names of classes that Go knows. Rust knows more of them, which a Go program would refuse.

/// Named classes in brackets: `[[:alpha:]]`.
pub(super) const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Unicode's general categories, their aliases and the sets beside them, in the loose form of [`property`].
const CATEGORIES: &str = "any ascii assigned c casedletter cc cf closepunctuation cn cntrl co combiningmark connectorpunctuation control \
    currencysymbol dashpunctuation decimalnumber digit enclosingmark finalpunctuation format initialpunctuation l lc \
    letter letternumber lineseparator ll lm lo lowercaseletter lt lu m mark mathsymbol mc me mn modifierletter \
    modifiersymbol n nd nl no nonspacingmark number openpunctuation other otherletter othernumber otherpunctuation \
    othersymbol p paragraphseparator pc pd pe pf pi po privateuse ps punct punctuation s sc separator sk sm so \
    spaceseparator spacingmark symbol titlecaseletter unassigned uppercaseletter z zl zp zs";

/// Unicode's scripts, in the same form.
const SCRIPTS: &str = "adlam ahom anatolianhieroglyphs arabic armenian avestan balinese bamum bassavah batak bengali bhaiksuki bopomofo \
    brahmi braille buginese buhid canadianaboriginal carian caucasianalbanian chakma cham cherokee chorasmian common \
    coptic cuneiform cypriot cyprominoan cyrillic deseret devanagari divesakuru dogra duployan egyptianhieroglyphs \
    elbasan elymaic ethiopic georgian glagolitic gothic grantha greek gujarati gunjalagondi gurmukhi han hangul \
    hanifirohingya hanunoo hatran hebrew hiragana imperialaramaic inherited inscriptionalpahlavi \
    inscriptionalparthian javanese kaithi kannada katakana kawi kayahli kharoshthi khitansmallscript khmer khojki \
    khudawadi lao latin lepcha limbu lineara linearb lisu lycian lydian mahajani makasar malayalam mandaic \
    manichaean marchen masaramgondi medefaidrin meeteimayek mendekikakui meroiticcursive meroitichieroglyphs miao \
    modi mongolian mro multani myanmar nabataean nagmundari nandinagari newa newtailue nko nushu \
    nyiakengpuachuehmong ogham olchiki oldhungarian olditalic oldnortharabian oldpermic oldpersian oldsogdian \
    oldsoutharabian oldturkic olduyghur oriya osage osmanya pahawhhmong palmyrene paucinhau phagspa phoenician \
    psalterpahlavi rejang runic samaritan saurashtra sharada shavian siddham signwriting sinhala sogdian sorasompeng \
    soyombo sundanese sylotinagri syriac tagalog tagbanwa taile taitham taiviet takri tamil tangsa tangut telugu \
    thaana thai tibetan tifinagh tirhuta toto ugaritic vai vithkuqi wancho warangciti yezidi yi zanabazarsquare";

/// A Unicode property.
pub(super) enum Property {
    /// One that Rust knows by this name.
    Named(String),
    /// Code points that no text holds.
    Surrogates,
}

/// The property of this name; case, spaces, underscores and hyphens don't count.
pub(super) fn property(name: &str) -> Option<Property> {
    let loose: String = name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).collect::<String>().to_ascii_lowercase();
    if matches!(loose.as_str(), "cs" | "surrogate") {
        return Some(Property::Surrogates);
    }
    let known = |list: &str| list.split(' ').any(|known| known == loose);
    (known(CATEGORIES) || known(SCRIPTS)).then_some(Property::Named(loose))
}

/// Every name, for tests.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    CATEGORIES.split(' ').chain(SCRIPTS.split(' '))
}
