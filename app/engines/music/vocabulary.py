"""The words that callers use for genres, moods, instruments and tempo.

Owns the synonyms, singular and lower-case, longest first when they compete. Promises values that exist in
`genres` and `instruments`. Leaves the reading of whole prompts to `brief`.
"""

from __future__ import annotations

from app.engines.music.score.notation import Role

GENRE_WORDS: dict[str, str] = {
    word: genre
    for genre, words in {
        "ambient": (
            "ambient|atmospheric|drone|space|spa|meditation|meditative|yoga|sleep|soundscape|new age|"
            "background texture|underwater|ethereal"
        ),
        "lofi": (
            "lofi|lo fi|lo-fi|chillhop|chill beats|study beats|study music|chill|chillout|coffee shop|"
            "coffeehouse"
        ),
        "cinematic": (
            "cinematic|film|movie|soundtrack|score|orchestral|orchestra|documentary|underscore|drama"
        ),
        "epic": "epic|trailer|heroic|battle|blockbuster|war drums|superhero",
        "corporate": (
            "corporate|business|presentation|commercial|advert|advertising|explainer|upbeat|motivational|"
            "inspirational|startup|product video|pop|indie pop"
        ),
        "electronic": (
            "electronic|edm|house|techno|dance|trance|club|dubstep|rave|drum and bass|workout|gym|electro"
        ),
        "synthwave": "synthwave|retrowave|outrun|80s|1980s|eighties|vaporwave|cyberpunk|neon",
        "jazz": "jazz|jazzy|swing|bebop|bossa|lounge|smooth jazz|blues|big band|noir",
        "acoustic": (
            "acoustic|folk|country|campfire|indie folk|americana|singer songwriter|bluegrass|celtic|irish"
        ),
        "piano": "piano solo|solo piano|piano ballad|piano piece|pianist",
        "rock": "rock|punk|metal|grunge|garage|hard rock|indie rock|guitar riff",
        "hiphop": "hip hop|hiphop|hip-hop|rap|trap|boom bap|beats|r&b|rnb|phonk",
        "classical": (
            "classical|baroque|mozart|bach|string quartet|chamber|waltz|symphony|romantic era|minuet|vivaldi"
        ),
        "chiptune": (
            "chiptune|chip tune|8 bit|8-bit|8bit|16 bit|16-bit|video game|arcade|retro game|nes|gameboy|pixel"
        ),
        "latin": (
            "latin|salsa|mambo|cuban|samba|rumba|tango|world|reggaeton|flamenco|spanish|tropical|caribbean|"
            "fiesta"
        ),
        "horror": "horror|scary|creepy|haunted|nightmare|terrifying|spooky|halloween|zombie|sinister|ghost",
        "lullaby": "lullaby|nursery|baby|bedtime|children|kid|kids|childrens|child|toddler|music box|cradle",
    }.items()
    for word in words.split("|")
}

MOOD_WORDS: dict[str, str] = {
    word: mood
    for mood, words in {
        "calm": (
            "calm|calming|relaxing|relaxed|peaceful|serene|soothing|gentle|quiet|soft|tranquil|mellow|chill|"
            "laid back|meditative|sleep|sleepy|warm"
        ),
        "happy": (
            "happy|cheerful|joyful|joyous|fun|sunny|bright|upbeat|feel good|celebration|party|birthday|"
            "summer|festive|merry"
        ),
        "sad": (
            "sad|melancholy|melancholic|sorrow|sorrowful|grief|lonely|heartbroken|heartbreak|crying|tragic|"
            "rainy|mournful|somber|gloomy|emotional"
        ),
        "tense": (
            "tense|suspense|suspenseful|thriller|anxious|urgent|chase|ticking|nervous|danger|dangerous|"
            "scary|terrifying|stressful"
        ),
        "dark": "dark|ominous|sinister|brooding|evil|grim|noir|menacing|gothic|bleak|creepy",
        "hopeful": (
            "hopeful|inspiring|inspirational|uplifting|optimistic|motivational|positive|corporate|"
            "encouraging|sunrise|triumph of hope"
        ),
        "epic": (
            "epic|heroic|powerful|majestic|triumphant|victorious|grand|massive|battle|dramatic|anthemic|"
            "glorious"
        ),
        "romantic": "romantic|love|wedding|tender|intimate|passionate|sensual|sweet|valentine|candlelight",
        "mysterious": (
            "mysterious|mystery|enigmatic|eerie|strange|curious|detective|magical|mystic|mystical|secret|"
            "haunting|alien"
        ),
        "playful": (
            "playful|quirky|funny|silly|whimsical|bouncy|cute|goofy|comedy|mischievous|cartoon|lighthearted"
        ),
        "energetic": (
            "energetic|energy|driving|intense|fast paced|exciting|pumping|workout|running|dance|high energy|"
            "sport|sports|adrenaline|dynamic|action"
        ),
        "nostalgic": (
            "nostalgic|nostalgia|retro|vintage|memory|memories|wistful|bittersweet|reminiscent|old school"
        ),
        "angry": "angry|aggressive|brutal|furious|rage|heavy|violent",
        "dreamy": "dreamy|dream|floating|ethereal|hazy|celestial|weightless|cosmic|dreamlike",
        "confident": "confident|cool|swagger|groovy|funky|funk|stylish|bold|badass",
    }.items()
    for word in words.split("|")
}

INSTRUMENT_WORDS: dict[str, str] = {
    word: instrument
    for instrument, words in {
        "grand piano": "piano|grand piano|keys",
        "felt piano": "felt piano|soft piano|muted piano",
        "upright piano": "upright piano|honky tonk",
        "electric piano": "electric piano|rhodes|wurlitzer|e-piano",
        "organ": "organ|hammond",
        "accordion": "accordion|harmonica|concertina|bandoneon",
        "strings": "strings|string section|string orchestra|violins",
        "staccato strings": "staccato strings|pizzicato|pizzicato strings|spiccato",
        "violin": "violin|fiddle|viola",
        "cello": "cello|celli|cellos",
        "brass": "brass|horns|french horn|trombone|tuba",
        "trumpet": "trumpet|flugelhorn|muted trumpet",
        "saxophone": "saxophone|sax|clarinet|oboe",
        "flute": "flute|flutes|woodwind|woodwinds|recorder|pan flute",
        "whistle": "whistle|whistling|tin whistle",
        "nylon guitar": "nylon guitar|classical guitar|spanish guitar",
        "steel guitar": "guitar|acoustic guitar|guitars|banjo|mandolin",
        "electric guitar": "electric guitar|electric guitars|distorted guitar|distorted guitars|power chords",
        "ukulele": "ukulele|uke",
        "harp": "harp|kora|koto|sitar",
        "marimba": "marimba|xylophone|kalimba|steel drum",
        "vibraphone": "vibraphone|vibes",
        "glockenspiel": "glockenspiel|celesta|bells|chimes",
        "music box": "music box",
        "tubular bells": "tubular bells|church bells|church bell",
        "synth pad": "synth|synths|synthesizer|synthesizers|synth pad|pads|pad|analog synth",
        "choir": "choir|voices|choral|vocal pad",
        "synth lead": "synth lead|lead synth|arpeggiated synth",
        "synth pluck": "arpeggio|arpeggios|arpeggiator|synth pluck|plucks",
        "upright bass": "upright bass|double bass|contrabass|walking bass",
        "electric bass": "bass|bass guitar|bassline|bass line|slap bass",
        "sub bass": "sub bass|deep bass|808 bass|sub",
        "synth bass": "synth bass|acid bass",
        "acoustic drums": "drums|drum|drum kit|percussion|live drums|beat|snare|cymbals|toms",
        "electronic drums": "electronic drums|drum machine|electronic beat|four on the floor",
        "808 drums": "808|808s|808 drums|tr-808",
        "orchestral percussion": "timpani|taiko|orchestral percussion|war drums|big drums|taikos",
    }.items()
    for word in words.split("|")
}

ROLE_WORDS: dict[str, Role] = {
    "melody": "melody",
    "lead": "melody",
    "tune": "melody",
    "pad": "pad",
    "pads": "pad",
    "bass": "bass",
    "bassline": "bass",
    "drums": "drums",
    "drum": "drums",
    "percussion": "drums",
    "beat": "drums",
    "beats": "drums",
    "rhythm section": "drums",
}
"""What `no ...` may silence beyond a family of instruments."""

PACE_WORDS: dict[str, float] = {
    "very slow": -0.35,
    "slow": -0.2,
    "slower": -0.2,
    "slowly": -0.2,
    "unhurried": -0.2,
    "downtempo": -0.2,
    "very fast": 0.4,
    "fast": 0.22,
    "faster": 0.22,
    "quick": 0.2,
    "rapid": 0.3,
    "uptempo": 0.2,
    "up tempo": 0.2,
    "up-tempo": 0.2,
}
"""Change of tempo as a share, with the genre's own range pushed to that end first."""

TEMPO_TERMS: dict[str, int] = {
    "largo": 52,
    "grave": 44,
    "lento": 56,
    "adagio": 68,
    "andante": 84,
    "andantino": 90,
    "moderato": 108,
    "allegretto": 114,
    "allegro": 132,
    "vivace": 160,
    "presto": 176,
    "prestissimo": 196,
}
"""Italian terms in BPM: the middles of the bands on common metronome scales."""
