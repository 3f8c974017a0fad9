"""Skill f: name the language of a sentence, out of ten."""

# ruff: noqa: RUF001  # sentences in scripts whose letters look alike

from training.chat.case import Case, assistant, user
from training.pools import Phrases, Pool, World

# For each language: sentence frames, then words for {a} (nouns), {b} (nouns), {c} (adjectives).
_FRAMES: dict[str, tuple[str, ...]] = {
    "english": (
        "The {a} is very {c}.|I would like to see the {a} and the {b}.|Where is the {a}?|My {a} is "
        "not here.|We have a {c} {a} at home.|She wants to buy a {a}.|They are looking for the "
        "{b}.|"
        "It was a {c} day with the {a}.|Do you know this {a}?|There is no {b} in the {a}.|He "
        "gave me "
        "a {c} {b} yesterday.|This {a} is more {c} than the {b}.|I think that the {a} was {c}.|"
        "Can you help me with the {a}?|Good morning, how is your {a}?|What a {c} {a}!",
        "house dog book garden car friend school city bread water letter table window child "
        "mother train",
        "big small beautiful old new cold warm good dark happy slow strange",
    ),
    "french": (
        "Le {a} est très {c}.|Je voudrais voir le {a} et le {b}.|Où est le {a} ?|Mon {a} n'est pas "
        "ici.|Nous avons un {a} {c} à la maison.|Elle veut acheter un {a}.|Ils cherchent le {b}.|"
        "C'était un jour {c} avec le {a}.|Est-ce que tu connais ce {a} ?|Il n'y a pas de {b} "
        "dans le "
        "{a}.|Il m'a donné un {b} {c} hier.|Ce {a} est plus {c} que le {b}.|Je pense que le {a} "
        "était "
        "{c}.|Pouvez-vous m'aider avec le {a} ?|Bonjour, comment va votre {a} ?|Quel {a} {c} !",
        "chien livre jardin ami pain train village bateau cheval fromage chat marché bureau lit "
        "frère soleil",
        "grand petit beau vieux nouveau froid chaud bon noir heureux lent étrange",
    ),
    "spanish": (
        "El {a} es muy {c}.|Me gustaría ver el {a} y el {b}.|¿Dónde está el {a}?|Mi {a} no está "
        "aquí.|Tenemos un {a} {c} en casa.|Ella quiere comprar un {a}.|Ellos buscan el {b}.|"
        "Fue un día {c} con el {a}.|¿Conoces este {a}?|No hay {b} en el {a}.|Ayer me dio un {b} "
        "{c}.|Este {a} es más {c} que el {b}.|Creo que el {a} era {c}.|¿Puedes ayudarme con el "
        "{a}?|"
        "Buenos días, ¿cómo está tu {a}?|¡Qué {a} tan {c}!",
        "perro libro jardín coche amigo pueblo pan tren barco caballo queso gato mercado hermano "
        "niño vino",
        "grande pequeño hermoso viejo nuevo frío caliente bueno oscuro feliz lento extraño",
    ),
    "portuguese": (
        "O {a} é muito {c}.|Eu gostaria de ver o {a} e o {b}.|Onde está o {a}?|Meu {a} não está "
        "aqui.|Nós temos um {a} {c} em casa.|Ela quer comprar um {a}.|Eles procuram o {b}.|"
        "Foi um dia {c} com o {a}.|Você conhece este {a}?|Não há {b} no {a}.|Ontem ele me deu um "
        "{b} "
        "{c}.|Este {a} é mais {c} do que o {b}.|Acho que o {a} era {c}.|Você pode me ajudar com o "
        "{a}?|Bom dia, como vai o seu {a}?|Que {a} tão {c}!",
        "cachorro livro jardim carro amigo povo pão trem barco cavalo queijo gato mercado irmão "
        "menino vinho",
        "grande pequeno bonito velho novo frio quente bom escuro feliz lento estranho",
    ),
    "german": (
        "Das {a} ist sehr {c}.|Ich möchte das {a} und das {b} sehen.|Wo ist das {a}?|Mein {a} ist "
        "nicht hier.|Wir haben ein Haus und ein {a}.|Sie will ein {a} kaufen.|Sie suchen das {b}.|"
        "Es war {c} mit dem {a}.|Kennst du dieses {a}?|Es gibt kein {b} im {a}.|Er hat mir gestern "
        "ein {b} gegeben.|Dieses {a} ist nicht so {c} wie das {b}.|Ich glaube, dass das {a} {c} "
        "war.|"
        "Können Sie mir mit dem {a} helfen?|Guten Morgen, wie geht es Ihrem {a}?|Wie {c} das {a} "
        "ist!",
        "Buch Auto Haus Kind Dorf Brot Wasser Fenster Pferd Schiff Zimmer Bild Bett Tier Land "
        "Messer",
        "groß klein schön alt neu kalt warm gut dunkel glücklich langsam seltsam",
    ),
    "russian": (
        "Этот {a} очень {c}.|Я хочу увидеть {a} и {b}.|Где {a}?|Мой {a} не здесь.|У нас дома есть "
        "{c} {a}.|Она хочет купить {a}.|Они ищут {b}.|Это был {c} {a}.|Ты знаешь этот {a}?|Здесь "
        "не "
        "{a}, а {b}.|Вчера он дал мне {b}.|Этот {a} не такой {c}, как {b}.|Я думаю, что {a} был "
        "{c}.|Вы можете мне помочь?|Доброе утро, как ваш {a}?|Какой {c} {a}!",
        "дом пёс сад друг хлеб поезд город стол брат корабль сыр кот рынок лес мост чай",
        "большой маленький красивый старый новый холодный тёплый хороший тёмный счастливый "
        "медленный странный",
    ),
    "chinese": (
        "这个{a}很{c}。|我想看{a}和{b}。|{a}在哪里？|我的{a}不在这里。|我们家有一个{c}的{a}。|她想买一个{a}。|"
        "他们在找{b}。|今天的{a}非常{c}。|你知道这个{a}吗？|{a}里没有{b}。|他昨天给了我一个{b}。|"
        "这个{a}比{b}更{c}。|我觉得{a}很{c}。|你可以帮我找{a}吗？|早上好，你的{a}怎么样？|多么{c}的{a}啊！",
        "房子 狗 书 花园 汽车 朋友 学校 城市 面包 桌子 窗户 孩子 火车 船 猫 市场",
        "大 小 漂亮 旧 新 冷 暖和 好 暗 高兴 慢 奇怪",
    ),
    "japanese": (
        "この{a}はとても{c}です。|{a}と{b}を見たいです。|{a}はどこですか？|私の{a}はここにありません。|"
        "家に{c}{a}があります。|彼女は{a}を買いたいです。|彼らは{b}を探しています。|今日の{a}は{c}です。|"
        "この{a}を知っていますか？|{a}の中に{b}はありません。|昨日、彼は私に{b}をくれました。|"
        "この{a}は{b}より{c}です。|{a}は{c}と思います。|{a}を手伝ってくれますか？|おはようございます、{a}は元気ですか？|"
        "なんて{c}{a}でしょう！",
        "家 犬 本 庭 車 友達 学校 町 パン 机 窓 子供 電車 船 猫 市場",
        "大きい 小さい 美しい 古い 新しい 寒い 暖かい いい 暗い うれしい 遅い 珍しい",
    ),
    "arabic": (
        "هذا {a} {c} جدا.|أريد أن أرى {a} و {b}.|أين {a}؟|{a} ليس هنا.|عندنا {a} {c} في البيت.|"
        "هي تريد أن تشتري {a}.|هم يبحثون عن {b}.|كان يوما مع {a}.|هل تعرف هذا {a}؟|لا يوجد {b} في "
        "{a}.|أعطاني أمس {b}.|هذا {a} أكثر من {b}.|أظن أن {a} كان {c}.|هل يمكنك مساعدتي؟|صباح "
        "الخير، "
        "كيف حالك مع {a}؟|ما هذا {a} {c}!",
        "بيت كلب كتاب حديقة صديق مدرسة مدينة خبز ماء رسالة نافذة طفل قطار سفينة قط سوق",
        "كبير صغير جميل قديم جديد بارد دافئ جيد مظلم سعيد بطيء غريب",
    ),
    "hindi": (
        "यह {a} बहुत {c} है।|मैं {a} और {b} देखना चाहता हूँ।|{a} कहाँ है?|मेरा {a} यहाँ नहीं "
        "है।|हमारे घर में एक "
        "{c} {a} है।|वह {a} खरीदना चाहती है।|वे {b} ढूँढ रहे हैं।|आज {a} {c} था।|क्या तुम इस {a} "
        "को जानते हो?|"
        "{a} में कोई {b} नहीं है।|उसने मुझे कल {b} दिया।|यह {a} {b} से अधिक {c} है।|मुझे लगता है "
        "कि {a} {c} था।|"
        "क्या आप मेरी मदद कर सकते हैं?|सुप्रभात, आपका {a} कैसा है?|कितना {c} {a}!",
        "घर कुत्ता किताब बगीचा गाड़ी दोस्त स्कूल शहर रोटी पानी पत्र मेज खिड़की बच्चा जहाज बाज़ार",
        "बड़ा छोटा सुंदर पुराना नया ठंडा गर्म अच्छा अँधेरा खुश धीमा अजीब",
    ),
}
LANGUAGES = tuple(_FRAMES)
_SENTENCES = {name: Phrases(*frames.split("|")) for name, (frames, _, _) in _FRAMES.items()}
_NOUNS = {name: Pool(nouns) for name, (_, nouns, _) in _FRAMES.items()}
_ADJECTIVES = {name: Pool(words) for name, (_, _, words) in _FRAMES.items()}
_ASK = Phrases(
    "[What|Which] language is [this|this sentence|the following sentence|this text][:|?] {text}",
    "[Name|Identify|Detect|Guess|Recognise] the language[:| of this sentence:| of:] {text}",
    '[What|Which] language is "{text}"[?|]',
    "In [what|which] language is [this|this written|the text][:|?] {text}",
    "{text}\n[What|Which] language is [this|that][?|]",
    "[Language of this sentence|Detect language|Language]: {text}",
    "Is this english, chinese, french, spanish, arabic, russian, german, japanese, portuguese or "
    "hindi[:|?] {text}",
)


def sentence_in(world: World, language: str) -> str:
    """A simple sentence of that language."""
    nouns = world.pick_some(_NOUNS[language], 2)
    first, second = nouns if len(nouns) == 2 else (nouns[0], nouns[0])
    # Frames are held out with the values: what is asked about, not how it is asked.
    own = _SENTENCES[language]
    frame = world.rng.choice(own.held_out if world.new_values else own.seen)
    return frame.format(a=first, b=second, c=world.pick(_ADJECTIVES[language]))


def name_language(world: World) -> Case:
    """A sentence or two; the answer is the language's English name in lower case."""
    language = world.rng.choice(LANGUAGES)
    text = sentence_in(world, language)
    if world.chance(0.25):
        text += " " + sentence_in(world, language)
    if world.chance(0.15):
        text = text.lower()
    if world.chance(0.15):
        text = text.rstrip(".?!。？！।؟")
    return Case(messages=[user(world.say(_ASK, text=text)), assistant(language)])
